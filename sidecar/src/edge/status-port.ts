/** The status on the admin port: shown to callers on this machine, and not found by others. */

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Status } from './status.ts'
import { isFetchedElsewhere, isOfBrowserElsewhere, isOnLoopback } from './status-caller.ts'

export type StatusPortOptions = {
  readonly read: () => Promise<Status>
  /** Whether an address can only belong to this machine. */
  readonly isLocalAddress: (address: string) => boolean
  /** Why nobody is shown it; `undefined` where callers on this machine are. */
  readonly objection: string | undefined
}

const HEADERS = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}
const ELSEWHERE = 'the status is shown at http://localhost and http://127.0.0.1 only'

export function serveStatus(app: FastifyInstance, options: StatusPortOptions): void {
  const { read, isLocalAddress, objection } = options

  /** Ends the request of a caller who is not shown anything. */
  const turnAway = (request: FastifyRequest, reply: FastifyReply): boolean => {
    if (!isOnLoopback(request.raw, isLocalAddress)) {
      // As for any path that is not served.
      reply.callNotFound()
      return true
    }
    const isElsewhere = isOfBrowserElsewhere(request.raw) || isFetchedElsewhere(request.raw)
    const reason = isElsewhere ? ELSEWHERE : objection
    if (reason === undefined) return false
    void reply.code(404).type('text/plain').send(`${reason}\n`)
    return true
  }

  app.get('/status', { exposeHeadRoute: false }, async (request, reply) => {
    if (turnAway(request, reply)) return reply
    return reply.headers(HEADERS).send(await read())
  })
}
