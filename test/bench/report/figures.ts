/** How figures and sizes are written. */

import { median } from '../results.ts'

const KIB = 1024

export const sizeName = (bytes: number): string =>
  bytes < KIB ? `${bytes} B` : `${bytes / KIB} KiB`

/** Three significant digits. */
export const figure = (value: number): string =>
  Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3)

/** The median, and the lowest and highest round. */
export const spread = (rounds: readonly number[]): string =>
  `${figure(median(rounds))} (${figure(Math.min(...rounds))}–${figure(Math.max(...rounds))})`
