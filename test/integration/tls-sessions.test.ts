/** A TLS session is resumed only while everything that its full handshake proved still holds. */

import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { connect, type ConnectionOptions } from 'node:tls'
import { test } from 'tap'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { createAuthority } from '../kit/authority.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { upgradeLines } from '../kit/raw-upgrade.ts'
import { startRig } from '../kit/rig.ts'
import { waitUntil } from '../kit/wait.ts'

type Scope = { teardown: (stop: () => unknown) => unknown; testdir: () => string }
type Certificate = { readonly cert: string; readonly key: string }

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const VERSIONS = ['TLSv1.3', 'TLSv1.2'] as const

const authority = await createAuthority('workers')
const server = await authority.issue({ commonName: 'sidecar', hosts: ['localhost'] })
const client = await authority.issue({ commonName: 'worker', usage: 'client' })

type RigOptions = { readonly clientCa?: string | undefined; readonly directory?: string }

/** Requires client certificates, unless `clientCa` is `undefined`. */
const rigWithTls = async (t: Scope, options: RigOptions = {}) => {
  const { directory = t.testdir(), clientCa } = { clientCa: authority.cert, ...options }
  const path = (name: string) => join(directory, name)
  const writePair = async ({ cert, key }: Certificate) => {
    await writeFile(path('tls.crt'), cert)
    await writeFile(path('tls.key'), key)
  }
  const writeCa = (pem: string) => writeFile(path('ca.pem'), pem)
  await writePair(server)
  if (clientCa !== undefined) await writeCa(clientCa)
  const mutual = clientCa === undefined ? '' : `, clientCaFile: ${path('ca.pem')}`
  const tls = `{certFile: ${path('tls.crt')}, keyFile: ${path('tls.key')}, minVersion: TLSv1.2${mutual}}`
  // OpenSSL has the machine's time, so the sidecar begins with it.
  const clock = new FakeClock(Date.now())
  const limits = ['limits.failuresPerAddress=0', 'limits.idlePing=1h']
  const set = [`listen.tls=${tls}`, 'k8sTrust.inBandCredentials=false', ...limits]
  const rig = await startRig({ clock, set })
  t.teardown(() => rig.stop())
  const pod = rig.createPod()
  const failures = async (reason: string) =>
    (await rig.metrics()).get(`openclaw_k8s_tls_handshake_failures_total{reason="${reason}"}`)
  /** Asks for an upgrade at once, behind the TLS handshake. */
  const enter = async (
    settings: ConnectionOptions,
    extra = [`Authorization: Bearer ${rig.mint({ pod })}`],
  ) => {
    const target = { port: rig.port, host: '127.0.0.1', localAddress: '127.0.0.11' }
    const socket = connect({
      ...target,
      servername: 'localhost',
      ca: authority.cert,
      ...client,
      ...settings,
    } as ConnectionOptions)
    let session: Buffer | undefined
    let received = ''
    socket.on('error', () => {}).on('session', (given: Buffer) => (session = given))
    const lines = upgradeLines('/', extra)
    socket.on('data', (chunk: Buffer) => (received += chunk.toString('latin1')))
    socket.write(`${lines.join('\r\n')}\r\n\r\n`)
    const closed = once(socket, 'close').catch(() => {})
    await Promise.race([closed, once(socket, 'data').catch(() => closed)])
    const isReused = socket.isSessionReused()
    socket.destroy()
    return { status: Number(received.slice(9, 12)), isReused, session }
  }
  const openSession = async (settings: ConnectionOptions = {}) => {
    const { status, isReused, session } = await enter(settings)
    if (status !== 101 || isReused || session === undefined) throw new Error('no session')
    return { ...settings, session }
  }
  const reload = () =>
    rig.sidecar.reload(() =>
      loadConfig({
        env: {},
        flags: [
          'gateway.protocol=stream',
          'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker}]',
        ],
        readFile: () => '',
      }),
    )
  return { rig, clock, directory, enter, openSession, reload, writePair, writeCa, failures }
}

const RESUMED = { status: 101, isReused: true }
const FULL = { status: 101, isReused: false }
const REFUSED = { status: 0 }

for (const maxVersion of VERSIONS) {
  test(`${maxVersion}: a session is resumed, with a client certificate and without`, async (t) => {
    for (const clientCa of [authority.cert, undefined]) {
      const { enter, openSession } = await rigWithTls(t, { clientCa })
      const session = await openSession({ maxVersion })
      const again = await enter(session)
      t.match(again, RESUMED)
      // TLS 1.2 keeps its ticket for as long as that is good.
      t.match(await enter({ ...session, session: again.session ?? session.session }), RESUMED)
    }
  })

  test(`${maxVersion}: a reload of the certificate ends every session`, async (t) => {
    for (const clientCa of [authority.cert, undefined]) {
      const { enter, openSession, reload, writePair } = await rigWithTls(t, { clientCa })
      const session = await openSession({ maxVersion })
      await writePair(await authority.issue({ commonName: 'sidecar', hosts: ['localhost'] }))
      reload()
      t.match(await enter(session), FULL)
      t.match(await enter(await openSession({ maxVersion })), RESUMED, 'a new one is resumed')
    }
  })

  test(`${maxVersion}: a session of a CA that was replaced is worth nothing`, async (t) => {
    const { rig, enter, openSession, reload, writeCa } = await rigWithTls(t)
    const next = await createAuthority('next')
    const session = await openSession({ maxVersion })
    await writeCa(next.cert)
    reload()
    const before = rig.gateway.handshakes.length
    t.match(await enter(session), REFUSED)
    t.equal(rig.gateway.handshakes.length, before)
    // The ticket proves nothing, the new certificate does.
    const renewed = await next.issue({ commonName: 'worker', usage: 'client' })
    t.match(await enter({ ...session, ...renewed }), FULL)
  })

  test(`${maxVersion}: a session does not outlive its client certificate`, async (t) => {
    const { rig, clock, enter, openSession, failures } = await rigWithTls(t)
    const request = { commonName: 'worker', usage: 'client' } as const
    const notAfter = new Date(clock.now() + 30 * MINUTE_MS)
    const short = await authority.issue({ ...request, notAfter })
    const other = await openSession({ maxVersion })
    const session = await openSession({ maxVersion, ...short })
    clock.advance(29 * MINUTE_MS)
    t.match(await enter(session), RESUMED)
    clock.advance(MINUTE_MS)
    t.match(await enter(other), RESUMED)
    const before = rig.gateway.handshakes.length
    t.match(await enter(session), REFUSED)
    t.equal(rig.gateway.handshakes.length, before, 'the request behind the handshake is not read')
    await waitUntil(async () => (await failures('client_certificate_expired')) === 1)
    // Its owner may have renewed the certificate, and still show the ticket.
    t.match(await enter({ ...session, ...client }), FULL)
  })

  test(`${maxVersion}: a session does not outlive a CA or an intermediate`, async (t) => {
    const notAfter = new Date(Date.now() + 30 * MINUTE_MS)
    const ending = await createAuthority('ending', { notAfter })
    const intermediate = await authority.subordinate('intermediate', { notAfter })
    const request = { commonName: 'worker', usage: 'client' } as const
    const direct = await ending.issue(request)
    const leaf = await intermediate.issue(request)
    const chained = { ...leaf, cert: `${leaf.cert}\n${intermediate.cert}` }
    const { cert } = authority
    for (const [clientCa, certificate] of [
      [`${cert}\n${ending.cert}`, direct],
      [cert, chained],
    ] as const) {
      const { clock, enter, openSession } = await rigWithTls(t, { clientCa })
      const session = await openSession({ maxVersion, ...certificate })
      clock.advance(29 * MINUTE_MS)
      t.match(await enter(session), RESUMED)
      clock.advance(MINUTE_MS)
      // OpenSSL, by whose clock the CA is still good, is asked again.
      t.match(await enter(session), FULL)
    }
  })

  test(`${maxVersion}: no session outlives an hour, however often it is resumed`, async (t) => {
    const { clock, enter, openSession } = await rigWithTls(t)
    const session = await openSession({ maxVersion })
    clock.advance(HOUR_MS - MINUTE_MS)
    const again = await enter(session)
    t.match(again, RESUMED)
    clock.advance(MINUTE_MS)
    t.match(await enter(session), FULL)
    if (again.session !== undefined) t.match(await enter({ ...session, ...again }), FULL)
  })

  test(`${maxVersion}: no session outlives the process`, async (t) => {
    const before = await rigWithTls(t)
    const session = await before.openSession({ maxVersion })
    await before.rig.sidecar.stop()
    const after = await rigWithTls(t, { directory: before.directory })
    t.match(await after.enter(session), FULL)
  })
}

test('a session alone, without a token, admits nobody', async (t) => {
  const { rig, enter, openSession } = await rigWithTls(t)
  const session = await openSession()
  const before = rig.gateway.handshakes.length
  t.match(await enter(session, []), { status: 401, isReused: true })
  t.equal(rig.gateway.handshakes.length, before)
})
