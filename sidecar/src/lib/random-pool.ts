/** Random bytes for nonces, from a pool: one system call costs as much for few as for many. */

import { randomBytes } from 'node:crypto'

const POOL_BYTES = 4096

let pool = Buffer.alloc(0)
let taken = 0

const take = (size: number): Buffer => {
  if (taken + size > pool.length) {
    pool = randomBytes(POOL_BYTES)
    taken = 0
  }
  taken += size
  return pool.subarray(taken - size, taken)
}

export const randomPool = {
  /** `size` bytes of the system's generator, never given out twice; at most 4 KiB. */
  take,
}
