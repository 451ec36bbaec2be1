/** The status on the admin port: shown to callers on this machine, and not found by others. */

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '../lib/clock.ts'
import { PAGE } from './page-files.ts'
import type { Status } from './status.ts'
import { isFetchedElsewhere, isOfBrowserElsewhere, isOnLoopback } from './status-caller.ts'
import { StatusEvents } from './status-events.ts'

export type StatusPortOptions = {
  readonly clock: Clock
  readonly read: () => Promise<Status>
  /** Whether an address can only belong to this machine. */
  readonly isLocalAddress: (address: string) => boolean
  /** Why nobody is shown it; `undefined` where callers on this machine are. */
  readonly objection: string | undefined
  /** The most event streams at once. */
  readonly eventStreamsMax: number
}

const COMMON_HEADERS = {
  'cache-control': 'no-store',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}
/** What the page needs, and nothing inline; a string never becomes markup or script. */
const PAGE_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ')
const DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
const DATA_HEADERS = { ...COMMON_HEADERS, 'content-security-policy': DATA_POLICY }
const PAGE_HEADERS = { ...COMMON_HEADERS, 'content-security-policy': PAGE_POLICY }

const ELSEWHERE = 'the status is shown at http://localhost and http://127.0.0.1 only'
const RETRY_AFTER_SECONDS = '10'
/** A HEAD of an event stream would never end. */
const ROUTE = { exposeHeadRoute: false }

export function serveStatus(app: FastifyInstance, options: StatusPortOptions): void {
  const { clock, read, eventStreamsMax: max } = options
  const events = new StatusEvents({ clock, read, max })

  app.get('/status', ROUTE, async (request, reply) => {
    if (turnAway(request, reply, options)) return reply
    return reply.headers(DATA_HEADERS).send(await read())
  })
  app.get('/events', ROUTE, (request, reply) => {
    if (turnAway(request, reply, options)) return
    if (events.isFull) {
      void reply.code(503).headers({ ...DATA_HEADERS, 'retry-after': RETRY_AFTER_SECONDS })
      void reply.type('text/plain').send(`at most ${max} can watch at once\n`)
      return
    }
    // From here on the connection counts as one that waits for its answer.
    reply.hijack()
    events.add(reply.raw, DATA_HEADERS)
  })
  for (const [path, { type, text }] of Object.entries(PAGE)) {
    app.get(path, ROUTE, async (request, reply) => {
      if (turnAway(request, reply, options)) return reply
      return reply.headers(PAGE_HEADERS).type(type).send(text)
    })
  }
}

/** Ends the request of a caller who is not shown anything, and returns true. */
function turnAway(
  { raw }: FastifyRequest,
  reply: FastifyReply,
  { isLocalAddress, objection }: StatusPortOptions,
): boolean {
  if (!isOnLoopback(raw, isLocalAddress)) {
    // As for any path that is not served.
    reply.callNotFound()
    return true
  }
  const reason = isOfBrowserElsewhere(raw) || isFetchedElsewhere(raw) ? ELSEWHERE : objection
  if (reason === undefined) return false
  void reply.code(404).type('text/plain').send(`${reason}\n`)
  return true
}
