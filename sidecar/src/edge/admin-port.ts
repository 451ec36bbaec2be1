/** The admin port: metrics, probes, version and the assertion's public key. Never a worker. */

import fastify from 'fastify'
import type { JSONWebKeySet } from 'jose'
import { listenOn } from './listen.ts'

/** One condition of readiness; `undefined` is good, a string says what is missing. */
export type ReadinessCheck = {
  readonly name: string
  readonly check: () => string | undefined | Promise<string | undefined>
}

export type AdminPortOptions = {
  readonly renderMetrics: () => Promise<{ readonly contentType: string; readonly body: string }>
  readonly checks: readonly ReadinessCheck[]
  readonly version: object
  readonly jwks: JSONWebKeySet
}

export type AdminPort = {
  readonly listen: (host: string, port: number) => Promise<string>
  readonly close: () => Promise<void>
}

export function createAdminPort(options: AdminPortOptions): AdminPort {
  const app = fastify({ forceCloseConnections: true, bodyLimit: 1024 })

  app.get('/metrics', async (_request, reply) => {
    const { contentType, body } = await options.renderMetrics()
    return reply.type(contentType).send(body)
  })
  // Says that the process turns its loop, and looks at nothing else.
  app.get('/livez', async (_request, reply) => reply.type('text/plain').send('ok\n'))
  app.get<{ Querystring: { verbose?: string } }>('/readyz', async (request, reply) => {
    const results = await Promise.all(
      options.checks.map(async ({ name, check }) => ({ name, objection: await check() })),
    )
    const isReady = results.every(({ objection }) => objection === undefined)
    const lines = results.map(({ name, objection }) =>
      objection === undefined ? `[+] ${name} ok\n` : `[-] ${name}: ${objection}\n`,
    )
    const verdict = isReady ? 'ok\n' : 'not ready\n'
    const isVerbose = request.query.verbose !== undefined || !isReady
    return reply
      .code(isReady ? 200 : 503)
      .type('text/plain')
      .send(isVerbose ? lines.join('') + verdict : verdict)
  })
  app.get('/version', async () => options.version)
  app.get('/.well-known/jwks.json', async () => options.jwks)

  return {
    listen: (host, port) => listenOn(app, { host, port }),
    close: () => app.close(),
  }
}
