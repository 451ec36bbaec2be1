/** What a gateway refuses, and why, reaches the operator: log, readiness, metric and doctor. No worker is told. */

import { writeFileSync } from 'node:fs'
import { createServer as createTlsServer } from 'node:https'
import { createServer, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { test, type Test } from 'tap'
import { run as doctor } from '@openclaw-k8s/auth-sidecar/commands/doctor.ts'
import { createAuthority } from '../kit/authority.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { startOpenClawRig, type OpenClawRigOptions } from '../kit/openclaw-rig.ts'
import { startRig, type Rig } from '../kit/rig.ts'
import { runCommand } from '../kit/run-command.ts'
import { waitUntil } from '../kit/wait.ts'

const readyz = async (rig: Pick<Rig, 'adminUrl'>) => {
  const answer = await fetch(`${rig.adminUrl}/readyz?verbose`)
  return { status: answer.status, text: await answer.text() }
}

const refusalsOf = async (rig: Pick<Rig, 'metrics'>, reason: string) =>
  (await rig.metrics()).get(`openclaw_k8s_gateway_refusals_total{reason="${reason}"}`) ?? NaN

const start = async (t: Test, options: OpenClawRigOptions = {}) => {
  const clock = new FakeClock()
  const rig = await startOpenClawRig({ clock, ...options })
  t.teardown(rig.stop)
  return { rig, clock }
}

type Examined = Pick<Rig, 'adminUrl' | 'gateway' | 'api' | 'tokenFile'>

/** What the doctor says of the gateway. */
const examine = async (rig: Examined, set: readonly string[]) => {
  const { stdout } = await runCommand(doctor, {
    set: [
      `listen.admin=${new URL(rig.adminUrl).host}`,
      `gateway.url=${rig.gateway.url}`,
      `kubernetes.apiServer=${rig.api.url}`,
      `kubernetes.caFile=${join(dirname(rig.tokenFile), 'ca.crt')}`,
      `kubernetes.tokenFile=${rig.tokenFile}`,
      'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker}]',
      ...set,
    ],
  })
  return stdout.split('\n').filter((line) => line.includes('] gateway'))
}

const ofOpenClaw = ({ secretFile }: { readonly secretFile: string }) => [
  'gateway.protocol=openclaw',
  `gateway.auth.secretFile=${secretFile}`,
]

const ATTRIBUTION =
  "the gateway answered 403 (proxy_attribution_required). Set gateway.trustedProxies to the sidecar's address alone " +
  "(127.0.0.1 and ::1) in the gateway's own configuration."

test('a gateway without trustedProxies makes the sidecar unready, and every place names the cure', async (t) => {
  let isProxyTrusted = false
  const { rig, clock } = await start(t, { gateway: { isProxyTrusted: () => isProxyTrusted } })
  await waitUntil(() => rig.log.join('').includes('the operator channel is up'))
  t.match(await readyz(rig), { status: 503, text: `[-] gateway: ${ATTRIBUTION}\n` })

  const asked = rig.gateway.handshakes.length
  for (let n = 0; n < 20; n += 1) await readyz(rig)
  t.equal(rig.gateway.handshakes.length, asked, 'the gateway is not asked each time')

  const node = await rig.startNode()
  t.match(await node.closed, { code: 1013, reason: 'gateway_refused' })
  t.notMatch(JSON.stringify(node.frames), /attribution|trustedProxies/)
  t.match(rig.log.join(''), `the gateway refuses the connections of workers`)
  t.match(rig.log.join(''), ATTRIBUTION)
  t.equal(await refusalsOf(rig, 'proxy_attribution_required'), 2, 'the question and the worker')
  t.match(await examine(rig, ofOpenClaw(rig)), [
    `[fail] gateway-upgrade: ${ATTRIBUTION}`,
    /^\[ok\] gateway: /,
    /^\[ok\] gateway-operator: /,
  ])

  isProxyTrusted = true
  clock.advance(2000)
  t.match(await readyz(rig), { status: 200, text: '[+] gateway ok\n' })
  t.match(rig.log.join(''), 'the gateway accepts the connections of workers again')
  t.equal(rig.gateway.handshakes.at(-1)?.headers['x-forwarded-for'], '192.0.2.1')
  t.equal(rig.gateway.handshakes.at(-1)?.headers['x-forwarded-user'], undefined)
  await waitUntil(() => rig.gateway.connections.size === 1)
  const after = rig.gateway.handshakes.length
  clock.advance(60_000)
  t.equal((await readyz(rig)).status, 200)
  t.equal(rig.gateway.handshakes.length, after, 'it is asked once')
})

test('a gateway that begins to refuse forwarded headers is found by the first worker', async (t) => {
  let isProxyTrusted = true
  const { rig, clock } = await start(t, { gateway: { isProxyTrusted: () => isProxyTrusted } })
  await waitUntil(async () => (await readyz(rig)).status === 200)
  isProxyTrusted = false
  const node = await rig.startNode()
  t.equal((await node.closed).code, 1013)
  clock.advance(2000)
  t.match(await readyz(rig), { status: 503, text: ATTRIBUTION })
})

test('a wrong secret is named as such', async (t) => {
  const SAID =
    'gateway.auth.secretFile: the gateway refuses this secret (AUTH_TOKEN_MISMATCH). ' +
    "Mount the gateway's own secret there, and restart the gateway if the secret was rotated."
  const { rig } = await start(t, { gateway: { token: 'another secret' } })
  await waitUntil(() => rig.log.join('').includes('AUTH_TOKEN_MISMATCH'))
  t.match(await readyz(rig), { status: 503, text: `[-] operator: ${SAID}\n` })
  t.match(rig.log.join(''), SAID)
  t.equal(await refusalsOf(rig, 'AUTH_TOKEN_MISMATCH'), 1)
  t.match(await examine(rig, ofOpenClaw(rig)), [
    `[fail] gateway-operator: ${SAID}`,
    /^\[ok\] gateway: /,
    /^\[ok\] gateway-upgrade: /,
  ])
})

const typed = (type: string) => JSON.stringify({ error: { type, message: 'gossip' } })
const CHUNKED = { 'Transfer-Encoding': 'chunked' }
const chunked = (body: string) => `${body.length.toString(16)};gossip=1\r\n${body}\r\n0\r\n\r\n`
const LOCKED =
  'The gateway has locked this address out after failed attempts: it opens again by itself within minutes.'
const BUSY =
  'The gateway starts, stops or is overloaded: it is asked again. Read its log if this stays.'
const UNKNOWN = "Read the gateway's log: it has the reason."

type RefusedUpgrade = {
  readonly status: number
  readonly body?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly keepOpen?: boolean
}

/** What a gateway answers, its reason in the metric, and the words for it. */
const UPGRADES: Record<string, readonly [RefusedUpgrade, reason: string, said: string]> = {
  '429 with a type': [
    { status: 429, body: typed('rate_limited') },
    'rate_limited',
    `the gateway answered 429 (rate_limited). ${LOCKED}`,
  ],
  '429 without a body': [
    { status: 429 },
    'rate_limited',
    `the gateway answered 429 (rate_limited). ${LOCKED}`,
  ],
  '503 with a type': [
    { status: 503, body: typed('service_unavailable') },
    'service_unavailable',
    `the gateway answered 503 (service_unavailable). ${BUSY}`,
  ],
  '403 with a type in chunks': [
    { status: 403, body: chunked(typed('proxy_attribution_required')), headers: CHUNKED },
    'proxy_attribution_required',
    ATTRIBUTION,
  ],
  '403 with chunks and no end': [
    {
      status: 403,
      body: chunked(typed('proxy_attribution_required')),
      headers: CHUNKED,
      keepOpen: true,
    },
    'proxy_attribution_required',
    ATTRIBUTION,
  ],
  '403 with an unknown type': [
    { status: 403, body: typed('no_operators_today') },
    'other',
    `the gateway answered 403 (no_operators_today). ${UNKNOWN}`,
  ],
  '403 with a huge body': [
    { status: 403, body: typed('x'.repeat(1_000_000)) },
    'other',
    'the gateway answered 403. It says no more. Check that gateway.url is the gateway, and a path where it serves WebSockets.',
  ],
}

for (const [name, [upgrade, reason, said]] of Object.entries(UPGRADES)) {
  test(`the operator's upgrade is refused by ${name}: every place says so`, async (t) => {
    const { rig } = await start(t, { gateway: { behavior: { kind: 'status', ...upgrade } } })
    await waitUntil(async () => (await refusalsOf(rig, reason)) >= 1)
    t.match((await readyz(rig)).text, `[-] operator: ${said}\n`)
    const told = rig.log.filter((line) => line.includes('the operator channel is down'))
    t.equal(told.length, 1)
    t.match(told[0], said)
    t.match(await examine(rig, ofOpenClaw(rig)), [
      `[fail] gateway-upgrade: ${said}`,
      `[fail] gateway-operator: ${said}`,
      /^\[ok\] gateway: /,
    ])
    t.notMatch(rig.log.join(''), /gossip/)
  })
}

test('a secret of another mode, and one that cannot be read, are named', async (t) => {
  const { rig } = await start(t, {
    gateway: { authMode: 'password' },
    set: ['gateway.auth.mode=token'],
  })
  await waitUntil(() => rig.log.join('').includes('AUTH_PASSWORD_MISSING'))
  t.match((await readyz(rig)).text, '[-] operator: gateway.auth.mode: the gateway expects another')

  const empty = await start(t, { set: ['gateway.auth.secretFile=/nowhere'] })
  t.match(await readyz(empty.rig), {
    status: 503,
    text: "[-] operator: gateway.auth.secretFile: the gateway's secret cannot be read\n",
  })
})

test('a server that is not OpenClaw is named', async (t) => {
  const SAID =
    'the server at gateway.url upgrades, but sends no connect.challenge (no_challenge). ' +
    'It is not OpenClaw: correct gateway.url, or set gateway.protocol to stream.'
  const { rig, clock } = await start(t, { gateway: { mode: 'echo' } })
  await rig.gateway.waitForConnection(1)
  await waitUntil(async () => {
    clock.advance(1000)
    return (await readyz(rig)).text.includes(SAID)
  })
  t.match(rig.log.join(''), SAID)
  t.ok((await refusalsOf(rig, 'no_challenge')) >= 1)
  t.match(await examine(rig, ofOpenClaw(rig)), [
    `[fail] gateway-upgrade: ${SAID}`,
    /^\[ok\] gateway: /,
  ])
})

test('a gateway that serves TLS behind ws:// is named', async (t) => {
  const { cert, key } = await (
    await createAuthority()
  ).issue({ commonName: 'g', hosts: ['127.0.0.1'] })
  const server = createTlsServer({ cert, key }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`
  const { rig } = await start(t, { set: [`gateway.url=${url}`] })
  t.match(await readyz(rig), { status: 503, text: '[-] gateway: the gateway serves TLS (tls). ' })
  t.match(rig.log.join(''), 'the gateway serves TLS (tls)')
  t.match(await examine(rig, [...ofOpenClaw(rig), `gateway.url=${url}`]), [
    /^\[fail\] gateway-upgrade: the gateway serves TLS \(tls\)\. .* set gateway\.tls\.enabled to false/,
    /^\[fail\] gateway-operator: /,
    /^\[ok\] gateway: /,
  ])
})

test('behind the stream protocol a gateway is not asked before a worker was refused', async (t) => {
  let isProxyTrusted = false
  const rig = await startRig({
    clock: new FakeClock(),
    gateway: { mode: 'openclaw', isProxyTrusted: () => isProxyTrusted },
  })
  t.teardown(rig.stop)
  await waitUntil(async () => (await readyz(rig)).status === 200)
  t.equal(rig.gateway.handshakes.length, 0)
  const outcome = await rig.connect({ token: rig.mint({ pod: rig.createPod() }) })
  t.match(outcome, { ok: false, status: 502 })
  t.notMatch(JSON.stringify(outcome), /attribution/)
  t.match(await readyz(rig), { status: 503, text: ATTRIBUTION })
  isProxyTrusted = true
  t.match(await examine(rig, ['gateway.protocol=stream']), [
    '[warn] gateway-upgrade: the gateway speaks the protocol of OpenClaw, and gateway.protocol is stream. ' +
      'Set it to openclaw, unless the workers are not nodes of OpenClaw.',
    /^\[ok\] gateway: /,
  ])
})

test('a refusal of one worker by a gateway other than OpenClaw leaves the sidecar ready', async (t) => {
  const body = JSON.stringify({ error: { type: 'payment_required', message: 'gossip' } })
  const rig = await startRig({ gateway: { behavior: { kind: 'status', status: 402, body } } })
  t.teardown(rig.stop)
  const outcome = await rig.connect({ token: rig.mint({ pod: rig.createPod() }) })
  t.match(outcome, { ok: false, status: 502 })
  t.equal(await refusalsOf(rig, 'other'), 1)
  t.match(rig.log.join(''), 'the gateway answered 402 (payment_required)')
  t.notMatch(rig.log.join('') + JSON.stringify(outcome), /gossip/)
  t.equal((await readyz(rig)).status, 200)
  t.match(await examine(rig, ['gateway.protocol=stream']), [
    /^\[ok\] gateway: /,
    '[ok] gateway-upgrade: the gateway answered 402 (payment_required): a connection without an identity is refused',
  ])
})

test('a gateway that is silent costs the readiness probe at most a second', async (t) => {
  const server = createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const { rig, clock } = await start(t, { set: [`gateway.url=ws://127.0.0.1:${port}`] })
  const asking = readyz(rig)
  const dialed = once(server, 'connection').then(() => once(server, 'connection'))
  await dialed
  await clock.advanceAsync(1000)
  t.match(await asking, { status: 503, text: '[-] operator: ' })
  writeFileSync(rig.secretFile, 'x')
})
