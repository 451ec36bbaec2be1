/** Logs connections that a port could not accept, at most one line a second. */

import { TokenBuckets } from '../lib/token-buckets.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'

const LOGS = { ratePerSecond: 1, burst: 1 }

export function createAcceptErrorLog(
  port: 'workers' | 'admin',
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): (error: Error) => void {
  const budget = new TokenBuckets({ ...LOGS, keysMax: 1, clock })
  return (err) => {
    if (budget.take('')) log.error({ err, port }, 'a connection could not be accepted')
  }
}
