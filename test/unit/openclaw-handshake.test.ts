/** The parts of a node's handshake: proofs, derived devices, filtered surfaces, refusals. */

import { createHash, createPublicKey, verify } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { test } from 'tap'
import { CODES, type Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { createDeviceKeys } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/device-key.ts'
import {
  findProofObjection,
  proofText,
} from '@openclaw-k8s/auth-sidecar/dialect/openclaw/device-proof.ts'
import {
  readConnect,
  type Challenge,
  type ConnectParams,
  type ConnectRequest,
} from '@openclaw-k8s/auth-sidecar/dialect/openclaw/frames.ts'
import {
  filterSurface,
  gatewayConnectFrame,
  isSurfaceAllowed,
  type Surface,
} from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-connect.ts'
import { judgeConnect } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/presented-credential.ts'
import { reactionTo, refusalFrame } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/refusal.ts'
import { connectFrame, createDevice } from '../kit/light-node.ts'

/** Captured between a real node, a proxy and a real gateway. */
const SAMPLE = JSON.parse(
  readFileSync(new URL('../kit/samples/openclaw/handshake.json', import.meta.url), 'utf8'),
) as Readonly<Record<string, { readonly payload: Challenge }>>

const CHALLENGE: Challenge = { nonce: 'nonce-1', ts: 1_800_000_000_000 }

const read = (frame: unknown): ConnectRequest => {
  const connect = readConnect(JSON.stringify(frame))
  if (!connect.ok) throw new Error(connect.code)
  return connect.value
}

const connectOf = (params: Partial<Parameters<typeof connectFrame>[2]> = {}) =>
  read(
    connectFrame(CHALLENGE.nonce, CHALLENGE.ts, {
      device: createDevice(),
      auth: { token: 'the-token' },
      ...params,
    }),
  )

const judge = (params: ConnectParams, shownToken?: string) => {
  const terms = { challenge: CHALLENGE, shownToken, nowMs: CHALLENGE.ts, protocolMin: 3 }
  const verdict = judgeConnect(params, terms)
  return verdict.ok ? verdict.value : verdict.code
}

test('the proofs of a real node and of a real handshake with a gateway hold', async (t) => {
  for (const [connect, challenge] of [
    ['nodeConnect', 'nodeChallenge'],
    ['gatewayConnect', 'gatewayChallenge'],
  ] as const) {
    const { payload } = SAMPLE[challenge] ?? { payload: CHALLENGE }
    const { params } = read(SAMPLE[connect])
    t.equal(findProofObjection(params, payload, payload.ts), undefined, connect)
    const swapped = { ...params, auth: { token: 'another' } }
    t.equal(findProofObjection(swapped, payload, payload.ts), 'device_signature_invalid')
  }
})

test('both versions of the proof are accepted, and each covers every field', async (t) => {
  for (const version of ['v2', 'v3'] as const) {
    const { params } = connectOf({ version })
    t.strictSame(judge(params), { token: 'the-token', role: 'node' }, version)
    const { client } = params
    const elsewhere = { ...params, client: { ...client, platform: 'darwin' } }
    const bound =
      version === 'v3' ? 'device_signature_invalid' : { token: 'the-token', role: 'node' }
    t.strictSame(judge(elsewhere), bound, `${version} with another platform`)
  }
  const signed = {
    deviceId: 'id',
    params: {
      client: { id: 'c', mode: 'm', version: '1', platform: 'Linux', deviceFamily: 'ÄB' },
      role: 'node',
      scopes: ['a', 'b'],
    },
    signedAt: 7,
    token: 't',
    nonce: 'n',
  }
  t.equal(proofText('v2', signed), 'v2|id|c|m|node|a,b|7|t|n')
  t.equal(proofText('v3', signed), 'v3|id|c|m|node|a,b|7|t|n|linux|Äb')
})

/** The same bytes with the last bit of the last character set, which belongs to no byte. */
function respell(text: string): string {
  const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  return text.slice(0, -1) + digits[digits.indexOf(text.at(-1) ?? '') + 1]
}

test('a proof holds for its own key, nonce, and time only', async (t) => {
  const { params } = connectOf()
  const device = params.device ?? { id: '', publicKey: '', signature: '', signedAt: 0, nonce: '' }
  const forged: Readonly<Record<string, readonly [Partial<typeof device>, Code]>> = {
    'another id': [{ id: createDevice().id }, 'device_id_mismatch'],
    'another key': [{ publicKey: createDevice().publicKey }, 'device_id_mismatch'],
    'another nonce': [{ nonce: 'nonce-0' }, 'device_nonce_mismatch'],
    'a time too old': [{ signedAt: CHALLENGE.ts - 120_001 }, 'device_clock_skew'],
    'a time too new': [{ signedAt: CHALLENGE.ts + 120_001 }, 'device_clock_skew'],
    'another time': [{ signedAt: CHALLENGE.ts + 1 }, 'device_signature_invalid'],
    'no signature to speak of': [{ signature: 'AAAA' }, 'device_signature_invalid'],
    'a key that is none': [{ publicKey: 'AAAA' }, 'device_signature_invalid'],
    'another spelling of the signature': [
      { signature: respell(device.signature) },
      'device_signature_invalid',
    ],
    'another spelling of the key': [
      { publicKey: respell(device.publicKey) },
      'device_signature_invalid',
    ],
  }
  for (const [what, [change, code]] of Object.entries(forged)) {
    t.equal(judge({ ...params, device: { ...device, ...change } }), code, what)
  }
  const { device: _, ...bare } = params
  t.equal(judge(bare), 'device_signature_invalid', 'no proof at all')
  const edge = connectFrame(CHALLENGE.nonce, CHALLENGE.ts - 120_000, {
    device: createDevice(),
    auth: { token: 'the-token' },
  })
  t.strictSame(judge(read(edge).params), { token: 'the-token', role: 'node' }, 'just in time')
})

test('only a scopeless node host of a protocol that the gateway takes may introduce itself', async (t) => {
  t.equal(judge(connectOf({ role: 'operator' }).params), 'role_not_allowed')
  t.equal(judge(connectOf({ scopes: ['operator.admin'] }).params), 'scopes_not_allowed')
  t.equal(judge(connectOf({ clientId: 'cli' }).params), 'client_not_allowed')
  t.equal(judge(connectOf({ mode: 'webchat' }).params), 'client_not_allowed')
  const { params } = connectOf()
  const { role: _role, ...roleless } = params
  t.equal(judge(roleless), 'role_missing')
  const { scopes: _scopes, ...unscoped } = params
  t.equal(judge(unscoped), 'scopes_not_allowed', 'without a list the gateway fills one in')
  t.equal(judge({ ...params, minProtocol: 5, maxProtocol: 6 }), 'protocol_mismatch')
  t.equal(judge({ ...params, minProtocol: 1, maxProtocol: 2 }), 'protocol_mismatch')
  t.equal(judge({ ...params, minProtocol: 4, maxProtocol: 3 }), 'protocol_mismatch')
  for (const [minProtocol, maxProtocol] of [
    [3, 9],
    [3, 3],
    [1, 3],
    [4, 5],
  ] as const) {
    const verdict = judge({ ...params, minProtocol, maxProtocol })
    t.strictSame(verdict, { token: 'the-token', role: 'node' }, `${minProtocol} to ${maxProtocol}`)
  }
  const terms = { challenge: CHALLENGE, shownToken: undefined, nowMs: CHALLENGE.ts }
  const older = { ...params, minProtocol: 3, maxProtocol: 3 }
  t.match(judgeConnect(older, { ...terms, protocolMin: 4 }), { code: 'protocol_mismatch' })
})

test('a node of an older protocol has to prove its key over our nonce as well', async (t) => {
  const { params } = connectOf({ version: 'v2' })
  const older = { ...params, minProtocol: 3, maxProtocol: 3 }
  t.strictSame(judge(older), { token: 'the-token', role: 'node' })
  const device = params.device ?? { id: '', publicKey: '', signature: '', signedAt: 0, nonce: '' }
  t.equal(judge({ ...older, device: { ...device, nonce: 'nonce-0' } }), 'device_nonce_mismatch')
  const frame = connectFrame(CHALLENGE.nonce, CHALLENGE.ts, { device: createDevice() })
  const { nonce: _, ...nonceless } = frame.params.device
  const without = { ...frame, params: { ...frame.params, device: nonceless } }
  t.match(readConnect(JSON.stringify(without)), { ok: false, code: 'connect_malformed' })
})

test('the credential is the token of the upgrade or of the frame, never both', async (t) => {
  const framed = connectOf().params
  const bare = connectOf({ auth: {} }).params
  t.match(judge(framed), { token: 'the-token' })
  t.match(judge(bare, 'shown'), { token: 'shown' })
  t.match(judge(framed, 'the-token'), { token: 'the-token' })
  t.equal(judge(framed, 'shown'), 'credential_mismatch')
  t.equal(judge(bare), 'credential_missing')
  for (const name of ['deviceToken', 'bootstrapToken', 'password']) {
    t.equal(judge(connectOf({ auth: { [name]: 'x' } }).params), 'credential_missing', name)
  }
})

test('a first frame that is not a connect is malformed', async (t) => {
  const frame = connectFrame('n', 1, { device: createDevice() })
  for (const text of [
    '',
    '{',
    'null',
    '[]',
    JSON.stringify({ ...frame, type: 'event' }),
    JSON.stringify({ ...frame, method: 'node.event' }),
    JSON.stringify({ ...frame, id: '' }),
    JSON.stringify({ ...frame, params: {} }),
    JSON.stringify({ type: 'connect.request', authMode: 'k8s-sa', saToken: 'x', role: 'node' }),
  ]) {
    t.strictSame(readConnect(text), { ok: false, code: 'connect_malformed' }, text.slice(0, 60))
  }
})

test('a pod has one device, which is unique and cannot be guessed', async (t) => {
  const pod = { namespace: 'a', serviceAccount: 'b', podName: 'c' }
  const keys = createDeviceKeys('a-seed-of-more-than-sixteen-bytes\n')
  const device = keys(pod)
  t.equal(keys({ ...pod }).id, device.id)
  t.equal(createDeviceKeys('a-seed-of-more-than-sixteen-bytes')(pod).id, device.id, 'stable')
  // Pinned: another derivation would orphan every device that is enrolled.
  t.equal(device.id, '6d7379eb6a43a1297b6e80af1e0fd86d9127210d55babca6ac5f21ecdff72be8')
  const others = [
    keys({ ...pod, namespace: 'x' }),
    keys({ ...pod, serviceAccount: 'x' }),
    keys({ ...pod, podName: 'x' }),
    createDeviceKeys('another-seed-of-many-bytes')(pod),
  ]
  t.equal(new Set([device, ...others].map(({ id }) => id)).size, 5)
  const raw = Buffer.from(device.publicKey, 'base64url')
  t.equal(createHash('sha256').update(raw).digest('hex'), device.id)
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: device.publicKey }
  const key = createPublicKey({ key: jwk, format: 'jwk' })
  t.ok(verify(null, Buffer.from('text'), key, Buffer.from(device.sign('text'), 'base64url')))
  t.throws(() => createDeviceKeys(' fifteen--bytes '), /shorter than 16 bytes/)
})

test('commands are filtered by the globs, and capabilities go with their commands', async (t) => {
  const commands = ['system.run', 'system.which', 'file.fetch', 'browser.proxy', 'ollama.chat']
  const caps = ['system', 'file', 'browser', 'local-inference', 'mcp']
  t.strictSame(filterSurface({ commands, caps }, ['*']), { commands, caps })
  t.strictSame(filterSurface({ commands, caps }, ['system.which', 'file.*']), {
    commands: ['system.which', 'file.fetch'],
    caps: ['system', 'file'],
  })
  t.strictSame(filterSurface({ commands, caps }, ['ollama.*']), {
    commands: ['ollama.chat'],
    caps: ['local-inference'],
  })
  t.strictSame(filterSurface({ commands, caps }, ['system.ru']), { commands: [], caps: [] })
  t.strictSame(filterSurface({}, ['*']), { commands: [], caps: [] })
})

test('what a node offers besides commands passes only with its own command', async (t) => {
  const surface = {
    commands: ['system.run', 'camera.snap', 'computer.act', 'canvas.show'],
    caps: ['system', 'camera', 'canvas', 'voice', 'constructor', '__proto__', 'toString'],
    permissions: { 'camera.snap': true, 'camera.capture': false, accessibility: true },
    computerUse: { contractVersion: 2, provider: { generation: 1 } },
  }
  t.strictSame(filterSurface(surface, ['*']), surface, 'everything may pass')
  t.strictSame(filterSurface(surface, ['x', '**']), surface)
  t.strictSame(
    filterSurface(surface, ['system.*', 'camera.*', 'canvas.*']),
    {
      commands: ['system.run', 'camera.snap', 'canvas.show'],
      caps: ['system', 'camera', 'canvas'],
      permissions: { 'camera.snap': true, 'camera.capture': false },
    },
    'no command describes the rest',
  )
  t.strictSame(filterSurface(surface, ['computer.act']), {
    commands: ['computer.act'],
    caps: [],
    permissions: {},
    computerUse: surface.computerUse,
  })
  const { commands: _, ...rest } = surface
  t.strictSame(filterSurface(rest, ['system.*', 'computer.*', 'camera.?nap']), {
    commands: [],
    caps: [],
    permissions: { 'camera.snap': true },
  })
  for (const name of Object.getOwnPropertyNames(Object.prototype)) {
    t.strictSame(filterSurface({ commands: ['a.b'], caps: [name] }, ['a.*']).caps, [], name)
    const own = { commands: [`${name}.x`], caps: [name] }
    t.strictSame(filterSurface(own, [`${name}.*`]), own, `${name} as any other name`)
  }
})

test('a surface is allowed when the policy allows all of it, and an unknown one never is', async (t) => {
  const commands = ['system.run', 'system.which']
  const cases: readonly (readonly [Surface, readonly string[], boolean])[] = [
    [{ commands }, ['system.*'], true],
    [{ commands }, ['system.which', 'system.run', 'system.run'], true],
    [{ commands }, ['system.which'], false],
    [{ commands: [] }, ['x'], true],
    [{ commands, caps: ['system'] }, ['system.*'], true],
    [{ commands, caps: ['system', 'mcp'] }, ['system.*'], false],
    [{ commands, permissions: { 'system.run': true } }, ['system.*'], true],
    [{ commands, permissions: { 'screen.record': true } }, ['system.*'], false],
    [{ commands, computerUse: {} }, ['system.*'], false],
    [{}, ['system.*'], false],
    [{ caps: ['system'] }, ['system.*', 'fs.*'], false],
    [{ permissions: { 'system.run': true } }, ['system.*'], false],
    [{ caps: ['anything'], permissions: { at: true }, computerUse: {} }, ['*'], true],
    [{ commands }, [], false],
  ]
  for (const [surface, allowedCommands, isAllowed] of cases) {
    const name = `${JSON.stringify(surface)} by ${allowedCommands.join(' ')}`
    t.equal(isSurfaceAllowed(surface, allowedCommands), isAllowed, name)
  }
})

test('a computerUse that cannot be serialized, or a member that sets a prototype, is malformed', async (t) => {
  const frame = connectFrame('n', 1, { device: createDevice() })
  const text = (computerUse: string) =>
    JSON.stringify(frame).replace('"caps":', `"computerUse":${computerUse},"caps":`)
  const nested = (levels: number) => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`
  const lists = (levels: number) => `${'['.repeat(levels)}${']'.repeat(levels)}`
  for (const good of [nested(16), lists(16), '{}', 'null', '"constructor"', '{"constructor":1}']) {
    t.equal(readConnect(text(good)).ok, true, good)
  }
  const bad = [nested(17), lists(17), nested(30_000), lists(30_000), '{"a":[{"__proto__":{}}]}']
  for (const each of bad) {
    t.strictSame(readConnect(text(each)), { ok: false, code: 'connect_malformed' })
  }
  const proto = JSON.stringify(frame).replace('"caps":', '"permissions":{"__proto__":true},"caps":')
  t.strictSame(readConnect(proto), { ok: false, code: 'connect_malformed' })
})

test("the gateway's connect is rebuilt, signed by the pod's device, and holds nothing of the worker's auth", async (t) => {
  const identity = {
    namespace: 'ns',
    serviceAccount: 'sa',
    podName: 'pod-1',
    podUid: 'uid',
    nodeName: undefined,
    credentialId: undefined,
    expiresAt: 0,
  }
  const device = createDeviceKeys('a-seed-of-more-than-sixteen-bytes')(identity)
  const request = connectOf({ auth: { token: 'worker-token', deviceToken: 'stolen' } })
  for (const auth of [{ token: 'gateway-secret' }, { bootstrapToken: 'once' }, {}]) {
    const text = gatewayConnectFrame({
      request,
      identity,
      allowedCommands: ['system.which'],
      device,
      challenge: CHALLENGE,
      auth,
    })
    const { id, params } = read(JSON.parse(text))
    t.equal(id, request.id)
    t.equal(findProofObjection(params, CHALLENGE, CHALLENGE.ts), undefined)
    t.equal(params.device?.id, device.id)
    t.strictSame(params.commands, ['system.which'])
    t.equal(params.pathEnv, '/usr/bin:/bin')
    t.notMatch(text, /worker-token|stolen|a-name-of-its-own-choice/)
    const frame = JSON.parse(text) as { params: { client: object; auth?: object } }
    t.match(frame.params.client, { displayName: 'pod-1', id: 'node-host', mode: 'node' })
    t.strictSame(frame.params.auth, Object.keys(auth).length === 0 ? undefined : auth)
  }
})

test('stale tokens make a node exit, faults and policy make it retry, nothing makes it pause', async (t) => {
  const reactions = Object.groupBy(Object.keys(CODES) as Code[], reactionTo)
  t.ok(reactions.exit?.includes('token_expired'))
  t.ok(reactions.exit?.includes('pod_deleted'))
  t.ok(
    reactions.exit?.every((code) =>
      /^(credential|token|review|signature|signing|algorithm|issuer|audience|pod_(not_found|deleted|mismatch)|service_account)/.test(
        code,
      ),
    ),
  )
  for (const code of [
    'identity_not_allowed',
    'token_not_yet_valid',
    'source_address_mismatch',
    'device_clock_skew',
    'role_not_allowed',
  ] as const) {
    t.equal(reactionTo(code), 'retry', code)
  }
  for (const code of Object.keys(CODES) as Code[]) {
    const offer = { minProtocol: 5, maxProtocol: 6, protocolMin: 3 }
    const text = refusalFrame(code, 'request-1', offer)
    t.notMatch(text ?? '', /PAIRING_REQUIRED|RATE_LIMITED|DEVICE_TOKEN_MISMATCH|SCOPE_MISMATCH/)
    if (CODES[code].kind === 'fault') {
      t.equal(text, undefined, `${code} is not a verdict: only the close code tells it`)
      continue
    }
    const frame = JSON.parse(text ?? '{}') as { error: { details: { code: string } } }
    if (code === 'protocol_mismatch') {
      const details = {
        code: 'PROTOCOL_MISMATCH',
        clientMinProtocol: 5,
        clientMaxProtocol: 6,
        expectedProtocol: 4,
        minimumProbeProtocol: 3,
      }
      t.strictSame(frame.error.details, details, 'word for word as the gateway')
      t.equal(CODES[code].close, 1002)
      continue
    }
    t.match(frame, {
      type: 'res',
      id: 'request-1',
      ok: false,
      error: { message: CODES[code].message },
    })
    const exits = frame.error.details.code === 'AUTH_TOKEN_MISMATCH'
    t.equal(exits, reactionTo(code) === 'exit', code)
    t.match(
      frame.error.details.code,
      /^(AUTH_TOKEN_MISMATCH|AUTH_UNAUTHORIZED|DEVICE_AUTH_[A-Z_]+)$/,
    )
  }
})
