/** A flood of failed TLS handshakes cannot flood the log, and each is counted. */

import type { TLSSocket } from 'node:tls'
import { test } from 'tap'
import { readTlsFailure } from '@openclaw-k8s/auth-sidecar/edge/tls-failure.ts'
import { createLog } from '@openclaw-k8s/auth-sidecar/observe/log.ts'
import { TlsFailures } from '@openclaw-k8s/auth-sidecar/observe/tls-failures.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const setUp = () => {
  const clock = new FakeClock()
  const lines: Record<string, unknown>[] = []
  const counts = new Map<string, number>()
  const failures = new TlsFailures({
    clock,
    log: createLog('trace', {
      write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>),
    }),
    metrics: {
      tlsFailures: {
        inc: ({ reason }: { reason: string }) =>
          void counts.set(reason, (counts.get(reason) ?? 0) + 1),
      },
    } as unknown as ConstructorParameters<typeof TlsFailures>[0]['metrics'],
  })
  return { clock, lines, counts, failures }
}

test('failures of one address and reason share a line in ten seconds', async (t) => {
  const { clock, lines, counts, failures } = setUp()
  for (let nth = 0; nth < 5; nth += 1) failures.failed('plain_http', '10.0.0.1')
  failures.failed('timeout', '10.0.0.1')
  failures.failed('plain_http', '10.0.0.2')
  failures.failed('plain_http', '2001:db8::1')
  failures.failed('plain_http', '2001:db8::2')
  clock.advance(9999)
  t.strictSame(lines, [])
  clock.advance(1)
  t.match(lines, [
    { level: 'warn', reason: 'plain_http', remoteIp: '10.0.0.1', count: 5, hint: /wss/ },
    { reason: 'timeout', remoteIp: '10.0.0.1', count: 1 },
    { reason: 'plain_http', remoteIp: '10.0.0.2', count: 1 },
    { reason: 'plain_http', remoteIp: '2001:db8::1', count: 2 },
  ])
  t.equal(counts.get('plain_http'), 8)
  clock.advance(60_000)
  t.equal(lines.length, 4)
  t.equal(clock.pending, 0)
})

test('what a client says of the certificate is told from what it is short of itself', async (t) => {
  const read = (code: string, authorizationError?: string) =>
    readTlsFailure(Object.assign(new Error(code), { code }), {
      authorizationError,
    } as unknown as TLSSocket)
  // A client of OpenSSL or Go sends these alerts; Node's own client leaves without one.
  for (const code of [
    'ERR_SSL_TLSV1_ALERT_UNKNOWN_CA',
    'ERR_SSL_SSL/TLS_ALERT_BAD_CERTIFICATE',
    'ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED',
    'ERR_SSL_SSL/TLS_ALERT_CERTIFICATE_UNKNOWN',
  ]) {
    t.equal(read(code), 'certificate_refused', code)
  }
  t.equal(read('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION'), 'no_shared_version')
  t.equal(read('ECONNRESET'), 'reset')
  t.equal(read('ECONNRESET', 'CERT_HAS_EXPIRED'), 'client_certificate_expired')
  t.equal(read('ECONNRESET', 'SELF_SIGNED_CERT_IN_CHAIN'), 'client_certificate_invalid')
  t.equal(read('ERR_SSL_BAD_KEY_SHARE'), 'other')
})

test('past fifty lines the rest are counted in one', async (t) => {
  const { clock, lines, counts, failures } = setUp()
  for (let nth = 0; nth < 1000; nth += 1) {
    failures.failed('reset', `10.0.${Math.floor(nth / 250)}.${nth % 250}`)
  }
  clock.advance(10_000)
  t.equal(lines.length, 50)
  t.match(lines.at(-1), { msg: 'TLS handshakes of more addresses failed', count: 951 })
  t.equal(counts.get('reset'), 1000)
})
