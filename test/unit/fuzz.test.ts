/** The fuzz targets without sockets hold for a fixed seed, and the fuzzer finds faults planted for it. */

import { test } from 'tap'
import { granted } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { gatewayConnectFrame } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-connect.ts'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { claimsTarget } from '../fuzz/claims.ts'
import { configTarget } from '../fuzz/config.ts'
import { firstMessageTarget, readFirst } from '../fuzz/first-message.ts'
import { framesTarget, relay } from '../fuzz/frames.ts'
import { EXIT, fuzz, readOptions } from '../fuzz/fuzz.ts'
import { openclawTarget } from '../fuzz/openclaw.ts'
import { playRound } from '../fuzz/round.ts'
import { PURE_TARGETS } from '../fuzz/targets.ts'
import type { Target } from '../fuzz/target.ts'

const SEED = 20_261_128

for (const { name, open } of PURE_TARGETS) {
  const { properties } = await open({ asProcess: false })
  for (const property of properties) {
    test(`${name}: ${property.promise}`, async (t) => {
      t.equal(await playRound({}, property, { seed: SEED }), undefined)
    })
  }
}

/** The target that the runner itself is tested with. */
const PLANTED_PROMISE = 'every part of an accepted token encodes back to itself'

/** Subjects with one fault each, and the promise that must notice it. */
const PLANTED: Readonly<Record<string, readonly [target: Target, promise: string]>> = {
  'a scanner that drops the last byte of a chunk': [
    framesTarget((chunks, masked) =>
      relay(
        chunks.map((chunk) => (chunk.length > 3 ? chunk.subarray(0, -1) : chunk)),
        masked,
      ),
    ),
    'chunking changes nothing',
  ],
  'a scanner that changes a byte': [
    framesTarget((chunks, masked) => {
      const relayed = relay(chunks, masked)
      const { out } = relayed
      if (out.length > 40) out.writeUInt8(out.readUInt8(40) ^ 1, 40)
      return relayed
    }),
    'what is relayed is a prefix of what arrived',
  ],
  'a scanner that relays everything': [
    framesTarget((chunks, masked) => ({ ...relay(chunks, masked), out: Buffer.concat(chunks) })),
    'nothing that ws refuses is relayed, and both count alike',
  ],
  'a scanner that refuses pings': [
    framesTarget((chunks, masked) => {
      const relayed = relay(chunks, masked)
      const isPing = relayed.out[0] === 0x89
      return isPing ? { ...relayed, out: Buffer.alloc(0), violation: 'framing_violation' } : relayed
    }),
    'nothing that ws accepts is refused, except what is stricter by design',
  ],
  'a scanner that finds every close reason broken': [
    framesTarget((chunks, masked) => {
      const relayed = relay(chunks, masked)
      const isClose = relayed.out[0] === 0x88
      return isClose ? { ...relayed, out: Buffer.alloc(0), violation: 'invalid_utf8' } : relayed
    }),
    'nothing that ws accepts is refused, except what is stricter by design',
  ],
  'a scanner that stops after four frames': [
    framesTarget((chunks, masked) => {
      const relayed = relay(chunks, masked)
      return relayed.counts.frames < 5
        ? relayed
        : { ...relayed, out: relayed.out.subarray(0, relayed.out.length >> 1) }
    }),
    'lawful frames within the limits are relayed whole',
  ],
  'a scanner that takes any close code': [
    framesTarget((chunks) => ({
      out: Buffer.concat(chunks),
      violation: undefined,
      counts: { bytes: 0, frames: 1, messages: 0 },
    })),
    'an unlawful close code is a violation and is never relayed',
  ],
  'a reader that loses what follows the message': [
    firstMessageTarget((chunks, masked) => {
      const read = readFirst(chunks, masked)
      return read.rest === undefined ? read : { ...read, rest: read.rest.subarray(1) }
    }),
    'a first message is the one ws reads, with nothing lost behind it',
  ],
  'a reader that looks at the first chunk alone': [
    firstMessageTarget((chunks, masked) => readFirst(chunks.slice(0, 1), masked)),
    'chunking changes nothing in a first message',
  ],
  'a reader that waits for ever': [
    firstMessageTarget(() => ({ kind: 'more', reply: Buffer.alloc(0) })),
    'ws refuses, waits for and closes the same inputs',
  ],
  'a reader that answers no ping': [
    firstMessageTarget((chunks, masked) => ({
      ...readFirst(chunks, masked),
      reply: Buffer.alloc(0),
    })),
    'every ping before the first message is answered once, in order',
  ],
  'a reader that takes any text': [
    firstMessageTarget(() => ({ kind: 'message', text: '', reply: Buffer.alloc(0) })),
    'text that is not UTF-8 is closed with 1007',
  ],
  'a reader that takes any close code': [
    firstMessageTarget(() => ({ kind: 'closed', reply: Buffer.alloc(0) })),
    'a first close frame with an unlawful code is a violation',
  ],
  'claims read as leniently as Node does': [
    claimsTarget(readLeniently),
    'an accepted token is strict JSON, and every value is read alike',
  ],
  'claims of which the last one counts': [
    claimsTarget(readLeniently),
    'an accepted token has no duplicate member, however it is spelled',
  ],
  'base64url of any spelling': [
    claimsTarget(readLeniently),
    'every part of an accepted token encodes back to itself',
  ],
  'claims that nobody can satisfy': [
    claimsTarget(() => ({ ok: false, code: 'token_malformed' })),
    'a token as a cluster writes it is accepted',
  ],
  'a claims reader that throws': [
    claimsTarget(() => {
      throw new TypeError('unreadable')
    }),
    'any text has a verdict',
  ],
  'a connect that keeps the role of the worker': [
    openclawTarget((options) =>
      gatewayConnectFrame(options).replace(
        '"role":"node"',
        `"role":${JSON.stringify(options.request.params.role ?? 'node')}`,
      ),
    ),
    'role, scopes, names, device and auth of a rebuilt connect are ours',
  ],
  "a connect that passes the worker's own device on": [
    openclawTarget((options) =>
      gatewayConnectFrame(options).replace(
        '"role":"node"',
        `"role":"node","workerDevice":${JSON.stringify(options.request.params.device ?? 0)}`,
      ),
    ),
    'a rebuilt connect holds nothing that the sidecar has not checked',
  ],
  'a connect that allows every command': [
    openclawTarget((options) => gatewayConnectFrame({ ...options, allowedCommands: ['*'] })),
    'a rebuilt connect offers what the worker offers and the policy allows',
  ],
  'a connect that cannot be deep': [
    openclawTarget(() => {
      throw new RangeError('too deep')
    }),
    'a connect of any depth is refused or rebuilt, never an exception',
  ],
  'a configuration that breaks on a list': [
    configTarget((options) => {
      if (options.flags.length > 1) throw new TypeError('not a section')
      return loadConfig(options)
    }),
    'any text is a configuration or a ConfigError',
  ],
  'a configuration with a prototype of its own': [
    configTarget((options) => {
      const loaded = loadConfig(options)
      return { ...loaded, config: Object.assign(Object.create({ enabled: true }), loaded.config) }
    }),
    'no text changes a prototype, or gives an option its own',
  ],
  'a configuration that lets any gateway in': [
    configTarget((options) => {
      const loaded = loadConfig({
        ...options,
        flags: [...options.flags, 'gateway.allowRemoteGateway=true'],
      })
      const gateway = { ...loaded.config.gateway, allowRemoteGateway: false }
      return { ...loaded, config: { ...loaded.config, gateway } }
    }),
    'a gateway is on loopback unless the option allows another',
  ],
  'a configuration without its allow-list': [
    configTarget((options) => {
      const loaded = loadConfig(options)
      const k8sTrust = { ...loaded.config.k8sTrust, allowedIdentities: [] }
      return { ...loaded, config: { ...loaded.config, k8sTrust } }
    }),
    'while trust is on there is an allow-list, and no name in it is empty',
  ],
  'a configuration that forgets the log level': [
    configTarget((options) => {
      const loaded = loadConfig(options)
      return {
        ...loaded,
        config: { ...loaded.config, log: { level: options.flags.length === 0 ? 'info' : 'fatal' } },
      }
    }),
    'a configuration written out loads again as the same',
  ],
}

type Named = { readonly name: string; readonly uid: string }
type LenientClaims = {
  readonly iss: string
  readonly aud: string | readonly string[]
  readonly iat: number
  readonly nbf: number
  readonly exp: number
  readonly jti?: string
  readonly 'kubernetes.io'?: {
    readonly namespace?: string
    readonly serviceaccount?: Named
    readonly pod?: Named
  }
}

/** How a reader behaves that leaves everything to Node. */
function readLeniently(token: string) {
  const body = token.split('.')[1] ?? ''
  const read: unknown = parseLeniently(Buffer.from(body, 'base64url').toString())
  const claims = read as LenientClaims | undefined
  const { namespace, serviceaccount, pod } = claims?.['kubernetes.io'] ?? {}
  if (claims === undefined || pod === undefined)
    return { ok: false, code: 'token_malformed' } as const
  return granted({
    issuer: claims.iss,
    audiences: [claims.aud].flat(),
    issuedAt: claims.iat,
    notBefore: claims.nbf,
    expiresAt: claims.exp,
    tokenId: claims.jti,
    namespace: namespace ?? '',
    serviceAccount: serviceaccount?.name ?? '',
    serviceAccountUid: serviceaccount?.uid ?? '',
    podName: pod.name,
    podUid: pod.uid,
    nodeName: undefined,
  })
}

const parseLeniently = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

test('a broken promise ends the run with its seed, its input and the way to replay it', async (t) => {
  const [planted] = Object.values(PLANTED).filter(([, promise]) => promise === PLANTED_PROMISE)
  if (planted === undefined) throw new Error('nothing is planted')
  const play = async (argv: readonly string[], uncaught: readonly unknown[] = []) => {
    const options = readOptions(argv)
    if (options === undefined) throw new Error('bad options')
    const written: string[] = []
    let nowMs = 0
    const exitCode = await fuzz(options, {
      targets: [planted[0]],
      write: (text) => written.push(text),
      now: () => (nowMs += 1000),
      drawSeed: () => 4711,
      takeUncaught: () => uncaught,
    })
    return { exitCode, text: written.join('') }
  }
  const broken = await play(['--seconds', '5', '--promise', PLANTED_PROMISE])
  t.equal(broken.exitCode, EXIT.failed)
  t.match(broken.text, /^1 targets, 5 s, seed 4711$/m)
  t.match(broken.text, `BROKEN claims: ${PLANTED_PROMISE}`)
  t.match(broken.text, /^ {2}seed 4711, path [0-9:]+$/m)
  t.match(broken.text, /^ {2}input: \[/m)
  t.match(broken.text, /^0 passed, 1 failed, 0 skipped\n$/m)

  const [, replay = ''] = /npm run fuzz -- (.*)$/m.exec(broken.text) ?? []
  const [, path = ''] = /--path (\S+)$/.exec(replay) ?? []
  const again = await play(['--promise', PLANTED_PROMISE, '--seed', '4711', '--path', path])
  t.equal(again.exitCode, EXIT.failed)
  t.match(again.text, /^not ok claims: 1 inputs/m, 'only that one input is tried')

  const held = await play(['--seconds', '2', '--promise', 'any text has a verdict'])
  t.equal(held.exitCode, EXIT.ok)
  t.match(held.text, /^1 passed, 0 failed, 0 skipped\n$/m)

  const uncaught = await play(
    ['--seconds', '2', '--promise', 'any text has a verdict'],
    [new Error('ECONNRESET')],
  )
  t.equal(uncaught.exitCode, EXIT.failed)
  t.match(uncaught.text, /nobody caught: ECONNRESET/)
})

test('a target with nothing to try does not pass', async (t) => {
  for (const argv of [
    ['--target', 'none'],
    ['--seconds', '1', '--promise', 'none'],
  ]) {
    const options = readOptions(argv)
    if (options === undefined) throw new Error('bad options')
    const exitCode = await fuzz(options, {
      targets: PURE_TARGETS.slice(0, 1),
      write: () => {},
      now: () => 0,
      drawSeed: () => 1,
      takeUncaught: () => [],
    })
    t.not(exitCode, EXIT.ok, argv.join(' '))
  }
  for (const argv of [['--seconds', 'long'], ['--seed', '-1'], ['--nonsense']]) {
    t.equal(readOptions(argv), undefined, argv.join(' '))
  }
})

for (const [fault, [{ open }, promise]] of Object.entries(PLANTED)) {
  test(`the fuzzer finds ${fault}`, async (t) => {
    const { properties } = await open({ asProcess: false })
    const property = properties.find((each) => each.promise === promise)
    if (property === undefined) throw new Error(`no such promise: ${promise}`)
    // It stops at the first input that shows the fault.
    t.match(await playRound({}, property, { seed: SEED, runs: 2000, shrinks: false }), {
      promise,
      counterexample: String,
    })
  })
}
