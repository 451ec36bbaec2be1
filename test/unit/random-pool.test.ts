/** Random bytes from a pool are as good as bytes that are generated one request at a time. */

import { test } from 'tap'
import { randomPool } from '@openclaw-k8s/auth-sidecar/lib/random-pool.ts'

test('random bytes are never given out twice, and never too few', async (t) => {
  const taken = Array.from({ length: 3000 }, (_, n) => randomPool.take(n % 2 === 0 ? 16 : 4))
  t.ok(
    taken.every(({ length }, n) => length === (n % 2 === 0 ? 16 : 4)),
    'across the end of several pools',
  )
  const places = taken.map(({ buffer, byteOffset }) => ({ buffer, byteOffset }))
  const isAhead = places.every(({ buffer, byteOffset }, n) => {
    const last = places[n - 1]
    return last?.buffer !== buffer || byteOffset >= last.byteOffset + (taken[n - 1]?.length ?? 0)
  })
  t.ok(isAhead, 'each begins where the last one ended')
  const long = taken.filter(({ length }) => length === 16).map((bytes) => bytes.toString('hex'))
  t.equal(new Set(long).size, long.length)
})
