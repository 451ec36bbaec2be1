/** Random bytes for nonces, from a stock: to ask for a few costs about as much as to ask for all of it. */

import { randomBytes } from 'node:crypto'

const STOCK_BYTES = 4096

let stock = Buffer.alloc(0)
let taken = 0

/** `size` bytes of the system's generator that nobody else was given; at most 4 KiB. */
export function takeRandom(size: number): Buffer {
  if (taken + size > stock.length) {
    stock = randomBytes(STOCK_BYTES)
    taken = 0
  }
  taken += size
  return stock.subarray(taken - size, taken)
}
