/** LRU caches that take their memory as they fill, and keep time by our clock. */

import { LRUCache } from 'lru-cache'
import type { Clock } from './clock.ts'

/** The bound of a cache. The option `max` would take all of its memory at once. */
export const boundedLru = (
  count: number,
): { readonly maxSize: number; readonly sizeCalculation: () => number } => ({
  maxSize: count,
  sizeCalculation: () => 1,
})

type TtlCacheOptions<V> = {
  readonly entriesMax: number
  /** How long an entry is kept unless its `set` says otherwise, in milliseconds. Default 1. */
  readonly ttlMs?: number
  readonly clock: Clock
  /** Called for each entry that leaves. */
  readonly onEvicted?: (value: V, key: string) => void
}

/** A bounded cache whose entries end exactly at their time. */
export const ttlCache = <V extends object | true>(
  options: TtlCacheOptions<V>,
): LRUCache<string, V> => {
  const { entriesMax, ttlMs = 1, clock, onEvicted } = options
  return new LRUCache<string, V>({
    ...boundedLru(entriesMax),
    ttl: ttlMs,
    ttlResolution: 0,
    perf: { now: () => clock.monotonic() },
    ...(onEvicted === undefined ? {} : { dispose: onEvicted }),
  })
}
