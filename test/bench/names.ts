/** How figures and sizes are written in tables. */

const KIB = 1024

export const sizeName = (bytes: number): string =>
  bytes < KIB ? `${bytes} B` : `${bytes / KIB} KiB`

/** Three digits that count. */
export const figure = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value.toPrecision(3)
