/** Raw bytes against a live admin port: it answers or hangs up, and starts no drain. */

import { ok } from 'node:assert/strict'
import * as fc from 'fast-check'
import { bytes, mutate, mutation } from './bytes.ts'
import { Silent, course, playCourse } from './connection.ts'
import { holdFuzzRig } from './fuzz-rig.ts'
import { promiseOf, type Target } from './target.ts'

const SILENT_MAX = 8
/** Several peers, so that no limit on one of them hides the rest. */
const ADDRESSES = ['127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.5'] as const
/** The largest answer there is, the metrics, with room to grow. */
const ANSWER_BYTES_MAX = 128 * 1024

const request = fc
  .record({
    method: fc.constantFrom(
      'GET',
      'GET',
      'GET',
      'HEAD',
      'POST',
      'PUT',
      'OPTIONS',
      'CONNECT',
      'TRACE',
      'get',
      '',
    ),
    target: fc.constantFrom(
      '/metrics',
      '/livez',
      '/readyz',
      '/readyz?verbose',
      '/readyz?verbose=1&verbose=2',
      '/version',
      '/.well-known/jwks.json',
      '/status',
      '/status?x=1',
      '/',
      '/status.js',
      '/drain',
      '/drain/',
      '//drain',
      '/%64rain',
      '*',
      '/%',
      '/__proto__',
      '/..%2f',
      'http://a/drain',
      `/${'a'.repeat(9000)}`,
      '',
    ),
    version: fc.constantFrom('HTTP/1.1', 'HTTP/1.1', 'HTTP/1.1', 'HTTP/1.0', 'HTTP/2.0', ''),
    fields: fc.array(
      fc.constantFrom(
        'Host: a',
        'Host: a',
        'Host: localhost',
        'Host: [::1]:9464',
        'Origin: http://localhost',
        'Connection: close',
        'Connection: keep-alive',
        'Connection: upgrade',
        'Upgrade: websocket',
        'Content-Length: 3',
        'Content-Length: 2000',
        'Content-Length: 99999999999',
        'Transfer-Encoding: chunked',
        'Expect: 100-continue',
        'Content-Type: application/json',
        'Content-Type: a/b; c=\u00ff',
        'Accept-Encoding: gzip',
        'X-OpenClaw-Drain-Proof: AAAA',
        `X: ${'x'.repeat(17_000)}`,
        'a\0: b',
        'Trailer: a',
      ),
      { maxLength: 4 },
    ),
    body: fc.constantFrom(
      '',
      '',
      '',
      'abc',
      '3\r\nabc\r\n0\r\n\r\n',
      'zz\r\n',
      '{"a":',
      'x'.repeat(2000),
    ),
  })
  .map(({ method, target, version, fields, body }) =>
    Buffer.from(
      `${[`${method} ${target} ${version}`, ...fields].join('\r\n')}\r\n\r\n${body}`,
      'latin1',
    ),
  )

const hostile = fc.record({
  requests: fc.oneof(
    { weight: 4, arbitrary: fc.array(request, { maxLength: 3 }) },
    {
      weight: 1,
      arbitrary: fc
        .tuple(request, fc.integer({ min: 2, max: 20 }))
        .map(([one, times]) => Array.from({ length: times }, () => one)),
    },
    { weight: 1, arbitrary: bytes(60).map((any) => [any]) },
  ),
  mutations: fc.oneof(
    { weight: 3, arbitrary: fc.constant([]) },
    { weight: 1, arbitrary: fc.array(mutation, { maxLength: 3 }) },
  ),
  address: fc.constantFrom(...ADDRESSES),
  course,
})

export const adminTarget: Target = {
  name: 'admin',
  async open({ asProcess }) {
    const held = await holdFuzzRig({ asProcess })
    const silent = new Silent(SILENT_MAX)
    return {
      properties: [
        promiseOf(
          {
            promise: 'no request to the admin port ends the sidecar or is answered without end',
            runs: 40,
          },
          fc.array(hostile, { minLength: 1, maxLength: 4 }),
          async (group) => {
            const rig = await held.get()
            await Promise.all(
              group.map(async ({ requests, mutations, address, course: each }) => {
                const sent = mutate(Buffer.concat(requests), mutations)
                const peer = { port: rig.adminPort, localAddress: address }
                const received = await playCourse(peer, sent, each, silent)
                if (received.length === 0) return
                const start = received.toString('latin1', 0, 12)
                ok(/^HTTP\/1\.1 \d{3}$/.test(start), start)
                // Mutations and bodies make requests too, so the least bound is on what was sent.
                ok(
                  received.length <= (1 + requests.length) * ANSWER_BYTES_MAX,
                  `${received.length} bytes`,
                )
              }),
            )
            await rig.metrics().catch(() => undefined)
            rig.assertAlive()
          },
        ),
      ],
      async settle() {
        silent.end()
        // A drain would keep the next worker out.
        await (await held.get()).assertUnchanged()
      },
      close: held.close,
    }
  },
}
