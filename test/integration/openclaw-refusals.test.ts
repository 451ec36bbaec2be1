/** Who gets no session in the `openclaw` protocol, and what a refused node is told. */

import { test } from 'tap'
import { LOCAL_ADDRESS, SECRET, startOpenClawRig } from '../kit/openclaw-rig.ts'
import { connectWorker } from '../kit/worker-client.ts'
import { connectFrame, createDevice, type ConnectParams } from '../kit/light-node.ts'

/** Codes that make a node wait for ever, or until somebody intervenes. */
const PAUSING = /PAIRING_REQUIRED|AUTH_RATE_LIMITED|AUTH_DEVICE_TOKEN_MISMATCH|AUTH_SCOPE_MISMATCH/

type Cheat = {
  readonly params: Partial<ConnectParams>
  readonly code: string
  /** What steers the node: the code that the gateway itself would send. */
  readonly details: string
}

const CHEATS: Readonly<Record<string, (token: string) => Cheat>> = {
  'the operator role': (token) => ({
    params: { auth: { token }, role: 'operator' },
    code: 'role_not_allowed',
    details: 'AUTH_UNAUTHORIZED',
  }),
  'the role of an owner’s backend': () => ({
    params: {
      auth: { token: SECRET },
      role: 'operator',
      clientId: 'gateway-client',
      mode: 'backend',
      scopes: ['operator.admin'],
    },
    code: 'role_not_allowed',
    details: 'AUTH_UNAUTHORIZED',
  }),
  'scopes beside the role of a node': (token) => ({
    params: { auth: { token }, scopes: ['operator.admin'] },
    code: 'scopes_not_allowed',
    details: 'AUTH_UNAUTHORIZED',
  }),
  'another client': (token) => ({
    params: { auth: { token }, clientId: 'openclaw-control-ui', mode: 'webchat' },
    code: 'client_not_allowed',
    details: 'AUTH_UNAUTHORIZED',
  }),
  'a forged device id': (token) => ({
    params: { auth: { token }, deviceId: createDevice().id },
    code: 'device_id_mismatch',
    details: 'DEVICE_AUTH_DEVICE_ID_MISMATCH',
  }),
  'the gateway’s own secret as its token': () => ({
    params: { auth: { token: SECRET } },
    code: 'token_malformed',
    details: 'AUTH_TOKEN_MISMATCH',
  }),
  'the gateway’s own secret as a password': () => ({
    params: { auth: { password: SECRET } },
    code: 'credential_missing',
    details: 'AUTH_TOKEN_MISMATCH',
  }),
  'a bootstrap token': () => ({
    params: { auth: { bootstrapToken: 'any' } },
    code: 'credential_missing',
    details: 'AUTH_TOKEN_MISMATCH',
  }),
}

test('a claim beyond a node’s rights is refused, and costs neither a TokenReview nor a dial', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const token = rig.mint({ pod: rig.createPod() })
  await rig.untilReady()
  const dials = rig.gateway.handshakes.length
  for (const [what, cheat] of Object.entries(CHEATS)) {
    const { params, code, details } = cheat(token)
    const node = await rig.openNode()
    const answer = await node.connect(params)
    t.match(answer, { ok: false, error: { details: { code: details, authReason: code } } }, what)
    t.match(await node.closed, { code: 1008, reason: code }, what)
    t.notMatch(JSON.stringify(node.frames), PAUSING, what)
  }
  t.equal(rig.api.counts.tokenReviews, 0)
  t.equal(rig.gateway.handshakes.length, dials)
})

test('a proof from another connection is refused, with its nonce or with the new one', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const device = createDevice()
  const victim = await rig.openNode()
  const auth = { token: rig.mint({ pod: rig.createPod() }) }
  const { nonce, ts } = victim.challenge
  const { signature } = connectFrame(nonce, ts, { device, auth }).params.device
  const replays = {
    device_nonce_mismatch: () => ({ nonce, signedAt: ts, signature }),
    device_signature_invalid: (fresh: string) => ({ nonce: fresh, signedAt: ts, signature }),
  }
  for (const [code, replay] of Object.entries(replays)) {
    const thief = await rig.openNode({ device, auth })
    t.match(await thief.connect({ proof: replay(thief.challenge.nonce) }), { ok: false })
    t.match(await thief.closed, { reason: code })
  }
  victim.end()
})

test('stale and wrong tokens make a node exit, temporary conditions make it retry', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const pod = rig.createPod()
  const elsewhere = rig.createPod('worker-b', '127.0.0.12')
  const stranger = rig.api.createPod({
    namespace: 'openclaw',
    name: 'stranger',
    serviceAccount: 'stranger',
    ips: ['127.0.0.11'],
  })
  const nowMs = Date.now() - 7_200_000
  const cases = {
    token_expired: [rig.mint({ pod, nowMs, expiresInS: 3600 }), 'AUTH_TOKEN_MISMATCH'],
    audience_mismatch: [rig.mint({ pod, audiences: ['x'] }), 'AUTH_TOKEN_MISMATCH'],
    signature_invalid: [rig.mint({ pod, key: 'forged' }), 'AUTH_TOKEN_MISMATCH'],
    source_address_mismatch: [rig.mint({ pod: elsewhere }), 'AUTH_UNAUTHORIZED'],
    identity_not_allowed: [rig.mint({ pod: stranger }), 'AUTH_UNAUTHORIZED'],
  } as const
  for (const [code, [token, details]] of Object.entries(cases)) {
    const node = await rig.openNode({ auth: { token } })
    t.match(await node.connect(), { ok: false, error: { details: { code: details } } }, code)
    t.match(await node.closed, { code: 1008, reason: code })
  }
})

test('an outage is signaled by the close code alone, so that the node comes back', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const token = rig.mint({ pod: rig.createPod() })
  rig.gateway.setBehavior({ kind: 'status', status: 503 }, { connections: 1 })
  const node = await rig.openNode({ auth: { token } })
  t.equal(await node.connect(), undefined, 'no answer to the connect')
  t.match(await node.closed, { code: 1013, reason: 'gateway_refused' })
  t.equal((await (await rig.openNode({ auth: { token } })).connect())?.ok, true)
})

test('a refusal by the gateway is not passed on, and is a fault to the node', async (t) => {
  const rig = await startOpenClawRig({
    gateway: {
      pair: ({ role }) =>
        role === 'node' ? { code: 'AUTH_RATE_LIMITED', message: 'secret gossip' } : undefined,
    },
  })
  t.teardown(rig.stop)
  const node = await rig.startNode()
  t.equal(node.answer, undefined)
  t.match(await node.closed, { code: 1013, reason: 'gateway_refused' })
  t.notMatch(JSON.stringify(node.frames), /RATE_LIMITED|gossip/)
  t.match(rig.log.join(''), /refused the connect \(AUTH_RATE_LIMITED\)/)
  t.notMatch(rig.log.join(''), /gossip/)
})

test('a browser, a loopback peer, and two credentials are refused before their 101', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const token = rig.mint({ pod: rig.createPod() })
  const upgrade = (options: object) => connectWorker({ url: rig.url, token, ...options })
  const localAddress = '127.0.0.11'
  t.match(await upgrade({ localAddress, headers: { Origin: 'https://evil.example' } }), {
    status: 403,
    body: { error: { type: 'origin_not_allowed' } },
  })
  t.match(await upgrade({ localAddress: LOCAL_ADDRESS }), {
    status: 403,
    body: { error: { type: 'source_address_local' } },
  })
  t.match(await upgrade({ localAddress, headers: { 'CF-Access-Client-Secret': token } }), {
    status: 400,
    body: { error: { type: 'credential_repeated' } },
  })
})

test('another token in the frame than at the upgrade is refused', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const pod = rig.createPod()
  const headers = { Authorization: `Bearer ${rig.mint({ pod })}` }
  const node = await rig.openNode({ headers })
  const answer = await node.connect({ auth: { token: rig.mint({ pod, expiresInS: 1234 }) } })
  t.match(answer, { ok: false, error: { details: { authReason: 'credential_mismatch' } } })
})

test('without credentials in the frame a bare upgrade is a 401', async (t) => {
  const rig = await startOpenClawRig({ set: ['k8sTrust.inBandCredentials=false'] })
  t.teardown(rig.stop)
  const localAddress = '127.0.0.11'
  t.match(await connectWorker({ url: rig.url, localAddress }), {
    status: 401,
    body: { error: { type: 'credential_missing' } },
  })
})
