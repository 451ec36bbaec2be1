/** Over TLS the worker port speaks only current versions and HTTP/1.1, and can require client certificates. */

import { once } from 'node:events'
import { connect as connectTcp } from 'node:net'
import { connect, type ConnectionOptions } from 'node:tls'
import { join } from 'node:path'
import { writeFile } from 'node:fs/promises'
import { test } from 'tap'
import { createAuthority } from '../kit/authority.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { startRig, type RigOptions } from '../kit/rig.ts'
import { waitUntil } from '../kit/wait.ts'
import { nextMessage } from '../kit/worker-client.ts'

type Scope = { teardown: (stop: () => unknown) => unknown; testdir: () => string }

const authority = await createAuthority('workers')
const stranger = await createAuthority('strangers')

const rigWithTls = async (t: Scope, isMutual = false, options: RigOptions = {}) => {
  const directory = t.testdir()
  const { cert, key } = await authority.issue({ commonName: 'sidecar', hosts: ['localhost'] })
  const file = async (name: string, text: string) => {
    await writeFile(join(directory, name), text)
    return join(directory, name)
  }
  const clientCa = isMutual ? `, clientCaFile: ${await file('ca.pem', authority.cert)}` : ''
  const tls = `{certFile: ${await file('tls.crt', cert)}, keyFile: ${await file('tls.key', key)}${clientCa}}`
  const set = [`listen.tls=${tls}`, ...(options.set ?? [])]
  const rig = await startRig({ ...options, set })
  t.teardown(() => rig.stop())
  const shake = async (settings: ConnectionOptions) => {
    const target = { port: rig.port, host: '127.0.0.1', servername: 'localhost' }
    const socket = connect({ ...target, ca: authority.cert, ...settings })
    socket.on('error', () => {})
    const result = await Promise.race([
      once(socket, 'secureConnect').then(() => socket.getProtocol() ?? ''),
      once(socket, 'close').then(() => 'refused'),
    ]).catch(() => 'refused')
    const { alpnProtocol } = socket
    socket.destroy()
    return { result, alpnProtocol }
  }
  return { rig, shake }
}

test('a worker enters over TLS, and the gateway is told that it did', async (t) => {
  const { rig } = await rigWithTls(t)
  const worker = await rig.connect({
    url: rig.url.replace('127.0.0.1', 'localhost'),
    token: rig.mint({ pod: rig.createPod() }),
    ca: authority.cert,
  } as Parameters<typeof rig.connect>[0])
  if (!worker.ok) throw new Error('refused')
  worker.socket.send('over TLS')
  t.equal((await nextMessage(worker.socket)).text, 'over TLS')
  t.equal(rig.gateway.handshakes[0]?.headers['x-forwarded-proto'], 'https')
  t.equal(rig.gateway.handshakes[0]?.headers['x-forwarded-for'], '127.0.0.11')
  worker.socket.terminate()
})

/** Also speaks TLS 1.2. */
const OLDER = { set: ['listen.tls.minVersion=TLSv1.2'] }

test('TLS 1.3 is spoken, and 1.2 only where it is allowed', async (t) => {
  const { shake } = await rigWithTls(t)
  t.equal((await shake({})).result, 'TLSv1.3')
  t.equal((await shake({ maxVersion: 'TLSv1.2' })).result, 'refused')
})

test('where TLS 1.2 is allowed, older versions are still not spoken', async (t) => {
  const { shake } = await rigWithTls(t, false, OLDER)
  t.equal((await shake({ maxVersion: 'TLSv1.2' })).result, 'TLSv1.2')
  t.equal((await shake({ minVersion: 'TLSv1.3' })).result, 'TLSv1.3')
  for (const version of ['TLSv1', 'TLSv1.1'] as const) {
    const old = await shake({
      minVersion: version,
      maxVersion: version,
      ciphers: 'DEFAULT@SECLEVEL=0',
    })
    t.equal(old.result, 'refused', version)
  }
})

test('HTTP/1.1 is chosen from several protocols, and h2 alone gets no connection', async (t) => {
  const { shake } = await rigWithTls(t)
  t.equal((await shake({ ALPNProtocols: ['h2', 'http/1.1'] })).alpnProtocol, 'http/1.1')
  t.equal((await shake({ ALPNProtocols: ['h2'] })).result, 'refused')
})

test('plain HTTP on the TLS port is cut, and its token goes nowhere', async (t) => {
  const { rig } = await rigWithTls(t)
  const token = rig.mint({ pod: rig.createPod() })
  const answer = await rawUpgrade({
    port: rig.port,
    localAddress: '127.0.0.11',
    lines: upgradeLines('/', [`Authorization: Bearer ${token}`]),
  })
  t.not(answer.status, 101)
  t.equal(rig.gateway.handshakes.length, 0)
})

test('with a client CA only its certificates get as far as HTTP', async (t) => {
  const { rig } = await rigWithTls(t, true)
  const pod = rig.createPod()
  const good = await authority.issue({ commonName: 'worker', usage: 'client' })
  const foreign = await stranger.issue({ commonName: 'worker', usage: 'client' })
  const wrongUse = await authority.issue({ commonName: 'worker', usage: 'server' })
  const expired = await authority.issue({
    commonName: 'worker',
    usage: 'client',
    notBefore: new Date(Date.now() - 7_200_000),
    notAfter: new Date(Date.now() - 3_600_000),
  })
  const ask = (certificate: object) =>
    rawUpgrade({
      port: rig.port,
      localAddress: '127.0.0.11',
      tls: { ca: authority.cert, ...certificate },
      lines: upgradeLines('/', [`Authorization: Bearer ${rig.mint({ pod })}`]),
    }).catch(() => ({ status: 0, socket: undefined }))
  for (const [name, certificate] of Object.entries({ none: {}, foreign, wrongUse, expired })) {
    t.equal((await ask(certificate)).status, 0, name)
  }
  t.equal(rig.gateway.handshakes.length, 0)
  const admitted = await ask(good)
  t.equal(admitted.status, 101)
  admitted.socket?.destroy()
})

test('a client certificate is not a credential', async (t) => {
  const { rig } = await rigWithTls(t, true, { set: ['k8sTrust.inBandCredentials=false'] })
  const certificate = await authority.issue({ commonName: 'worker', usage: 'client' })
  const answer = await rawUpgrade({
    port: rig.port,
    localAddress: '127.0.0.11',
    tls: { ca: authority.cert, ...certificate },
    lines: upgradeLines(),
  })
  t.equal(answer.status, 401)
})

test('a TLS handshake that never comes is cut when the handshake time is up', async (t) => {
  const clock = new FakeClock()
  const { rig } = await rigWithTls(t, false, { clock, set: ['limits.handshakeTimeout=5s'] })
  const socket = connectTcp({ port: rig.port, host: '127.0.0.1', localAddress: '127.0.0.11' })
  socket.on('error', () => {}).resume()
  await once(socket, 'connect')
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_pending_sockets') === 1)
  const cut = once(socket, 'close')
  await clock.advanceAsync(5000)
  await cut
  t.equal(rig.gateway.handshakes.length, 0)
})

test('TLS handshakes without a request are charged, and finally no longer started', async (t) => {
  const { rig, shake } = await rigWithTls(t, false, {
    clock: new FakeClock(),
    set: ['limits.failuresPerAddress=1/s'],
  })
  const left = async () =>
    (await rig.metrics()).get('openclaw_k8s_upgrades_refused_total{code="worker_gone"}')
  for (let nth = 1; nth <= 5; nth += 1) {
    // Complete and broken ones alike: a client that does not trust us ends with an alert.
    const isWhole = nth % 2 === 0
    const { result } = await shake(isWhole ? {} : { ca: stranger.cert })
    t.equal(result, isWhole ? 'TLSv1.3' : 'refused')
    await waitUntil(async () => (await left()) === nth)
  }
  t.equal((await shake({})).result, 'refused')
  const limited = 'openclaw_k8s_upgrades_refused_total{code="rate_limited"}'
  t.equal((await rig.metrics()).get(limited), 1)
})

test('over TLS an admitted worker is no longer pending', async (t) => {
  const { rig } = await rigWithTls(t)
  const token = rig.mint({ pod: rig.createPod() })
  const url = rig.url.replace('127.0.0.1', 'localhost')
  const outcome = await rig.connect({ url, token, ca: authority.cert } as Parameters<
    typeof rig.connect
  >[0])
  t.equal(outcome.ok, true)
  t.equal((await rig.metrics()).get('openclaw_k8s_pending_sockets'), 0)
  if (outcome.ok) outcome.socket.terminate()
})

test('over TLS 1.2 nobody renegotiates, neither before the upgrade nor behind it', async (t) => {
  const { rig } = await rigWithTls(t, false, OLDER)
  for (const isUpgraded of [false, true]) {
    const socket = connect({
      port: rig.port,
      host: '127.0.0.1',
      servername: 'localhost',
      ca: authority.cert,
      maxVersion: 'TLSv1.2',
    })
    socket.on('error', () => {})
    await once(socket, 'secureConnect')
    if (isUpgraded) {
      socket.write(`${upgradeLines().join('\r\n')}\r\n\r\n`)
      const [answer] = (await once(socket, 'data')) as [Buffer]
      t.match(answer.toString(), /^HTTP\/1.1 101 /)
    }
    const outcome = await new Promise<string>((resolve) => {
      socket.renegotiate({}, (error) => resolve(error === null ? 'renegotiated' : 'refused'))
      socket.once('error', () => resolve('refused'))
      socket.once('close', () => resolve('refused'))
    })
    t.equal(outcome, 'refused', isUpgraded ? 'behind the upgrade' : 'before it')
    socket.destroy()
  }
})

/** Certificates of clients, by what is wrong with them. */
const issueClients = async () => {
  const past = { notBefore: new Date(Date.now() - 7e6), notAfter: new Date(Date.now() - 3e6) }
  const request = { commonName: 'worker', usage: 'client' } as const
  return {
    foreign: await stranger.issue(request),
    expired: await authority.issue({ ...request, ...past }),
    future: await authority.issue({ ...request, notBefore: new Date(Date.now() + 3e6) }),
    forServers: await authority.issue({ ...request, usage: 'server' }),
  }
}

test('a failed TLS handshake is counted by its reason, and logged with its address', async (t) => {
  const clients = await issueClients()
  const plain = { isMutual: false, set: [] as string[] }
  const mutual = { isMutual: true, set: [] as string[] }
  const weak = { isMutual: false, set: OLDER.set }
  const write = (bytes: string | Buffer) => (port: number) => {
    const socket = connectTcp({ port, host: '127.0.0.1', localAddress: '127.0.0.11' })
    socket.on('error', () => {}).resume()
    socket.write(bytes)
    return socket
  }
  const dial = (settings: ConnectionOptions) => (port: number) => {
    const target = { port, host: '127.0.0.1', localAddress: '127.0.0.11', servername: 'localhost' }
    const socket = connect({ ...target, ca: authority.cert, ...settings } as ConnectionOptions)
    return socket.on('error', () => {}).resume()
  }
  const cases = [
    ['plain_http', plain, write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')],
    ['not_tls', plain, write(Buffer.alloc(64, 7))],
    ['client_certificate_missing', mutual, dial({})],
    ['client_certificate_expired', mutual, dial(clients.expired)],
    ['client_certificate_invalid', mutual, dial(clients.foreign)],
    ['client_certificate_invalid', mutual, dial(clients.future)],
    ['client_certificate_invalid', mutual, dial(clients.forServers)],
    ['no_shared_version', plain, dial({ maxVersion: 'TLSv1.2' })],
    ['no_shared_cipher', weak, dial({ maxVersion: 'TLSv1.2', ciphers: 'AES128-SHA' })],
    ['other', plain, dial({ ALPNProtocols: ['h2'] })],
    ['reset', plain, (port: number) => write(Buffer.from('160301', 'hex'))(port).end()],
    // A client that does not trust the certificate, and leaves without a word.
    ['reset', plain, dial({ ca: stranger.cert })],
  ] as const
  for (const [reason, { isMutual, set }, attack] of cases) {
    const { rig } = await rigWithTls(t, isMutual, { set })
    const count = async () =>
      (await rig.metrics()).get(`openclaw_k8s_tls_handshake_failures_total{reason="${reason}"}`)
    t.equal(await count(), 0)
    const socket = attack(rig.port)
    await waitUntil(async () => (await count()) === 1)
    await rig.sidecar.stop()
    socket.destroy()
    const line = rig.log.find((text) => text.includes('TLS handshakes failed')) ?? '{}'
    t.match(JSON.parse(line), { reason, remoteIp: '127.0.0.11', count: 1, hint: /./ }, reason)
  }
})

test('a TLS handshake that takes too long is counted, and a probe of the port is not', async (t) => {
  const clock = new FakeClock()
  const { rig } = await rigWithTls(t, false, { clock, set: ['limits.handshakeTimeout=5s'] })
  const failures = async () =>
    [...(await rig.metrics())].filter(
      ([name, count]) => name.startsWith('openclaw_k8s_tls_handshake_failures_total') && count > 0,
    )
  const open = () => {
    const socket = connectTcp({ port: rig.port, host: '127.0.0.1', localAddress: '127.0.0.11' })
    return socket.on('error', () => {}).resume()
  }
  const isPending = (count: number) => async () =>
    (await rig.metrics()).get('openclaw_k8s_pending_sockets') === count
  const probe = open()
  await waitUntil(isPending(1))
  probe.destroy()
  await waitUntil(isPending(0))
  const slow = open()
  await waitUntil(isPending(1))
  const cut = once(slow, 'close')
  await clock.advanceAsync(5000)
  await cut
  await waitUntil(async () => (await failures()).length > 0)
  t.strictSame(await failures(), [
    ['openclaw_k8s_tls_handshake_failures_total{reason="timeout"}', 1],
  ])
})
