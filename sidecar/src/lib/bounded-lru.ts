/** The bound of an LRU cache that takes its memory as it fills: `max` would take all of it at once. */

export const boundedLru = (
  count: number,
): { readonly maxSize: number; readonly sizeCalculation: () => number } => ({
  maxSize: count,
  sizeCalculation: () => 1,
})
