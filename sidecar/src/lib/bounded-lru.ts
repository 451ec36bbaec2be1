/** The bound of an LRU cache that allocates as it fills: `max` would allocate all at once. */

export const boundedLru = (
  count: number,
): { readonly maxSize: number; readonly sizeCalculation: () => number } => ({
  maxSize: count,
  sizeCalculation: () => 1,
})
