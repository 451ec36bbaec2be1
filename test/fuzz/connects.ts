/** OpenClaw's connects as a worker may send them: good, changed in any member, or garbage. */

import * as fc from 'fast-check'
import { connectFrame, createDevice } from '../kit/light-node.ts'
import { mutate, mutation } from './bytes.ts'

export const NOW_MS = 1_800_000_000_000
export const CHALLENGE = { nonce: 'nonce-of-the-sidecar', ts: NOW_MS }
export const TOKEN = 'token-of-the-worker'
export const WORKER_DEVICE = createDevice()

const word = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom('node', 'operator', 'node-host', 'system', 'a', '') },
  { weight: 1, arbitrary: fc.string({ maxLength: 300 }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom('constructor', '__proto__', 'toString', '|', '\0', '\ud800'),
  },
)
/** Names on an object's prototype are checked by a separate promise. */
export const capability = fc.constantFrom(
  'system',
  'file',
  'local-inference',
  'browser',
  'a',
  'A B',
)
export const command = fc.constantFrom(
  'system.run',
  'system.which',
  'fs.read',
  'file.get',
  'dir.list',
  'ollama.chat',
  'a.b',
  'browser.open',
)
export const PROTOTYPE_NAMES = Object.getOwnPropertyNames(Object.prototype)
export const glob = fc.constantFrom('*', 'system.*', 'system.run', '?.b', 'fs*', 'file.get', 'none')

/** Anything in the place of a member of the params, or of one further in. */
const replacements = fc.array(
  fc.record({
    path: fc.constantFrom(
      ['role'],
      ['scopes'],
      ['client', 'id'],
      ['client', 'mode'],
      ['client', 'platform'],
      ['client', 'displayName'],
      ['client', 'instanceId'],
      ['client', '__proto__'],
      ['auth', 'token'],
      ['auth', 'password'],
      ['auth', 'deviceToken'],
      ['auth', 'bootstrapToken'],
      ['device', 'id'],
      ['device', 'publicKey'],
      ['device', 'signature'],
      ['device', 'signedAt'],
      ['device', 'nonce'],
      ['minProtocol'],
      ['maxProtocol'],
      ['permissions'],
      ['computerUse'],
      ['pathEnv'],
      ['locale'],
      ['extra'],
      ['__proto__'],
      ['client'],
      ['auth'],
      ['device'],
    ),
    value: fc.oneof(
      word,
      fc.jsonValue({ maxDepth: 2 }),
      fc.constantFrom<unknown>(
        4,
        3,
        5,
        -1,
        1e308,
        [],
        ['operator.admin'],
        {},
        { admin: true },
        null,
        TOKEN,
      ),
    ),
  }),
  { maxLength: 3 },
)

type Replacement = { readonly path: readonly string[]; readonly value: unknown }

const replaceIn = (tree: unknown, { path, value }: Replacement): unknown => {
  const [key, ...rest] = path
  if (key === undefined) return value
  const entries = Object.entries(typeof tree === 'object' && tree !== null ? tree : {})
  const others = entries.filter(([name]) => name !== key)
  const own = entries.find(([name]) => name === key)?.[1]
  // Unlike an assignment, this makes `__proto__` a member.
  return Object.fromEntries([...others, [key, replaceIn(own, { path: rest, value })]])
}

const connect = fc
  .record({
    replacements,
    caps: fc.option(fc.array(capability, { maxLength: 4 }), { nil: undefined }),
    commands: fc.array(command, { maxLength: 6 }),
    version: fc.constantFrom('v2' as const, 'v3' as const),
  })
  .map(({ replacements: changes, caps, commands, version }) => {
    const auth = { token: TOKEN }
    const { nonce, ts } = CHALLENGE
    const frame = connectFrame(nonce, ts, { device: WORKER_DEVICE, auth, commands, version })
    const params = changes.reduce<unknown>(replaceIn, { ...frame.params, caps })
    return JSON.stringify({ ...frame, id: 'id-of-the-worker', params })
  })

export const text = fc.oneof(
  { weight: 6, arbitrary: connect },
  {
    weight: 2,
    arbitrary: fc
      .tuple(connect, fc.array(mutation, { maxLength: 3 }))
      .map(([whole, by]) => mutate(Buffer.from(whole), by).toString()),
  },
  { weight: 1, arbitrary: fc.json() },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 100 }) },
)
