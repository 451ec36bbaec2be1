/** OpenClaw's frames: whatever a worker says, the connect that the gateway gets is the sidecar's own. */

import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict'
import { createPublicKey, verify } from 'node:crypto'
import * as fc from 'fast-check'
import { readConnectRequest } from '@openclaw-k8s/auth-sidecar/dialect/connect-request.ts'
import { createDeviceKeys } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/device-key.ts'
import {
  readChallenge,
  readConnect,
  readEvent,
  readResponse,
  refusalCodeOf,
  type ConnectParams,
} from '@openclaw-k8s/auth-sidecar/dialect/openclaw/frames.ts'
import {
  filterSurface,
  gatewayConnectFrame,
  type GatewayConnectOptions,
} from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-connect.ts'
import { judgeConnect } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/presented-credential.ts'
import type { Identity } from '@openclaw-k8s/auth-sidecar/identity.ts'
import { connectFrame } from '../kit/light-node.ts'
import {
  CHALLENGE,
  NOW_MS,
  PROTOTYPE_NAMES,
  TOKEN,
  WORKER_DEVICE,
  capability,
  command,
  glob,
  text,
} from './connects.ts'
import { promiseOf, pureTarget, type Target } from './target.ts'

export type Rebuild = (options: GatewayConnectOptions) => string

const GATEWAY_CHALLENGE = { nonce: 'nonce-of-the-gateway', ts: NOW_MS + 5 }
const DEVICE = createDeviceKeys('a-seed-of-more-than-sixteen-bytes')({
  namespace: 'openclaw',
  serviceAccount: 'openclaw-worker',
  podName: 'worker-0',
})
const IDENTITY: Identity = {
  namespace: 'openclaw',
  serviceAccount: 'openclaw-worker',
  podName: 'worker-0',
  podUid: 'uid-0',
  nodeName: 'node-1',
  credentialId: undefined,
  expiresAt: NOW_MS / 1000 + 60,
}
/** What the gateway may be told in a connect: nothing else was looked at. */
const MEMBERS = [
  'minProtocol',
  'maxProtocol',
  'client',
  'role',
  'scopes',
  'caps',
  'commands',
  'permissions',
  'computerUse',
  'pathEnv',
  'locale',
  'userAgent',
  'auth',
  'device',
]

const auth = fc.constantFrom(
  {},
  { token: 'of-the-gateway' },
  { password: 'p' },
  { bootstrapToken: 'b' },
)

type Sent = {
  readonly type: string
  readonly id: string
  readonly method: string
  readonly params: Readonly<Record<string, unknown>> & {
    readonly client: Readonly<Record<string, unknown>>
    readonly commands: readonly string[]
    readonly caps: readonly string[]
    readonly device: Readonly<Record<string, unknown>>
  }
}

/** Other ranges of protocols are refused before anything is rebuilt. */
const isServed = ({ minProtocol, maxProtocol }: ConnectParams): boolean =>
  minProtocol <= maxProtocol && minProtocol <= 4 && maxProtocol >= 3

const rebuild = (
  subject: Rebuild,
  worker: string,
  { allowedCommands, gatewayAuth }: { allowedCommands: readonly string[]; gatewayAuth: object },
) => {
  const request = readConnect(worker)
  if (!request.ok || !isServed(request.value.params)) return undefined
  const sent = subject({
    request: request.value,
    identity: IDENTITY,
    allowedCommands,
    device: DEVICE,
    challenge: GATEWAY_CHALLENGE,
    auth: gatewayAuth,
  })
  return { request: request.value, sent: JSON.parse(sent) as Sent }
}

/** A glob without a regular expression: `*` by trying every length. */
const matches = (pattern: string, name: string): boolean => {
  if (pattern === '') return name === ''
  if (pattern.startsWith('*')) {
    return matches(pattern.slice(1), name) || (name !== '' && matches(pattern, name.slice(1)))
  }
  const isFirst = name !== '' && (pattern[0] === '?' || pattern[0] === name[0])
  return isFirst && matches(pattern.slice(1), name.slice(1))
}

/** The text that a v3 proof signs, put together from what was sent. */
const signedText = ({ params }: Sent, token: string): string => {
  const { client, device } = params
  const lower = (value: unknown) =>
    (typeof value === 'string' ? value : '').replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase())
  return [
    'v3',
    device['id'],
    client['id'],
    client['mode'],
    'node',
    '',
    device['signedAt'],
    token,
    device['nonce'],
    lower(client['platform']),
    lower(client['deviceFamily']),
  ].join('|')
}

const isSigned = (sent: Sent, token: string): boolean => {
  const { publicKey, signature } = sent.params.device
  const key = createPublicKey({
    key: { kty: 'OKP', crv: 'Ed25519', x: String(publicKey) },
    format: 'jwk',
  })
  return verify(
    null,
    Buffer.from(signedText(sent, token)),
    key,
    Buffer.from(String(signature), 'base64url'),
  )
}

const rebuilt = fc.record({
  worker: text,
  allowedCommands: fc.array(glob, { maxLength: 3 }),
  gatewayAuth: auth,
})

export const openclawTarget = (subject: Rebuild = gatewayConnectFrame): Target =>
  pureTarget('openclaw', [
    promiseOf(
      { promise: 'role, scopes, names, device and auth of a rebuilt connect are ours', runs: 125 },
      rebuilt,
      ({ worker, allowedCommands, gatewayAuth }) => {
        const made = rebuild(subject, worker, { allowedCommands, gatewayAuth })
        if (made === undefined) return
        const { request, sent } = made
        const {
          auth: sentAuth = {},
          client,
          device,
          role,
          scopes,
          minProtocol,
          maxProtocol,
        } = sent.params
        deepStrictEqual(
          {
            type: sent.type,
            id: sent.id,
            method: sent.method,
            role,
            scopes,
            sentAuth,
            minProtocol,
            maxProtocol,
          },
          {
            type: 'req',
            id: request.id,
            method: 'connect',
            role: 'node',
            scopes: [],
            sentAuth: gatewayAuth,
            // What both the worker and a gateway that takes 3 and 4 can speak.
            minProtocol: Math.max(request.params.minProtocol, 3),
            maxProtocol: Math.min(request.params.maxProtocol, 4),
          },
        )
        strictEqual(client['displayName'], 'worker-0')
        strictEqual(client['instanceId'], 'system:serviceaccount:openclaw:openclaw-worker/worker-0')
        deepStrictEqual(
          {
            id: device['id'],
            publicKey: device['publicKey'],
            nonce: device['nonce'],
            signedAt: device['signedAt'],
          },
          {
            id: DEVICE.id,
            publicKey: DEVICE.publicKey,
            nonce: GATEWAY_CHALLENGE.nonce,
            signedAt: GATEWAY_CHALLENGE.ts,
          },
        )
        const { token, bootstrapToken } = gatewayAuth as { token?: string; bootstrapToken?: string }
        ok(isSigned(sent, token ?? bootstrapToken ?? ''), 'its signature does not hold')
      },
    ),
    promiseOf(
      { promise: 'a rebuilt connect holds nothing that the sidecar has not checked', runs: 75 },
      rebuilt,
      ({ worker, allowedCommands, gatewayAuth }) => {
        const made = rebuild(subject, worker, { allowedCommands, gatewayAuth })
        if (made === undefined) return
        deepStrictEqual(
          Object.keys(made.sent.params).filter((member) => !MEMBERS.includes(member)),
          [],
        )
        ok(!JSON.stringify(made.sent).includes(WORKER_DEVICE.publicKey), "the worker's own key")
      },
    ),
    promiseOf(
      {
        promise: 'a rebuilt connect offers what the worker offers and the policy allows',
        runs: 75,
      },
      rebuilt,
      ({ worker, allowedCommands, gatewayAuth }) => {
        const made = rebuild(subject, worker, { allowedCommands, gatewayAuth })
        if (made === undefined) return
        const { commands = [], caps = [] } = made.request.params
        const isAllowed = (each: string) =>
          allowedCommands.some((pattern) => matches(pattern, each))
        deepStrictEqual(made.sent.params.commands, commands.filter(isAllowed))
        ok(made.sent.params.caps.every((each) => caps.includes(each)))
      },
    ),
    promiseOf(
      {
        promise: 'a connect is introduced as a node with the token it showed, or not at all',
        runs: 100,
      },
      fc.record({ worker: text, shownToken: fc.constantFrom(undefined, TOKEN, 'another') }),
      ({ worker, shownToken }) => {
        const request = readConnect(worker)
        if (!request.ok) return
        const { params } = request.value
        const terms = { challenge: CHALLENGE, shownToken, nowMs: NOW_MS, protocolMin: 3 }
        const verdict = judgeConnect(params, terms)
        if (!verdict.ok) return
        deepStrictEqual(verdict.value, { token: shownToken ?? params.auth?.token, role: 'node' })
        deepStrictEqual([params.role, params.scopes], ['node', []])
        strictEqual(params.device?.id, WORKER_DEVICE.id)
        ok(
          shownToken === undefined ||
            params.auth?.token === undefined ||
            params.auth.token === shownToken,
        )
      },
    ),
    promiseOf(
      { promise: 'a capability of any name is kept or dropped without an exception', runs: 50 },
      fc.record({
        caps: fc.array(fc.oneof(capability, fc.constantFrom(...PROTOTYPE_NAMES), fc.string()), {
          maxLength: 5,
        }),
        commands: fc.array(fc.oneof(command, fc.constantFrom(...PROTOTYPE_NAMES)), {
          maxLength: 5,
        }),
        allowedCommands: fc.array(glob, { maxLength: 3 }),
      }),
      ({ caps, commands, allowedCommands }) => {
        const surface = filterSurface({ caps, commands }, allowedCommands)
        ok(surface.caps.every((each) => caps.includes(each)))
        ok(surface.commands.every((each) => commands.includes(each)))
      },
    ),
    promiseOf(
      { promise: 'a connect of any depth is refused or rebuilt, never an exception', runs: 20 },
      fc.record({
        member: fc.constantFrom('computerUse', 'permissions', 'extra', 'client'),
        depth: fc.constantFrom(1, 10, 1000, 5000, 30_000),
        isList: fc.boolean(),
      }),
      ({ member, depth, isList }) => {
        const [open, close] = isList ? ['[', ']'] : ['{"a":', '}']
        const deep = `${open.repeat(depth)}1${close.repeat(depth)}`
        const frame = connectFrame(CHALLENGE.nonce, CHALLENGE.ts, { device: WORKER_DEVICE })
        const params = JSON.stringify({ ...frame.params, [member]: 'DEEP' }).replace('"DEEP"', deep)
        const worker = `{"type":"req","id":"1","method":"connect","params":${params}}`
        rebuild(subject, worker, { allowedCommands: ['*'], gatewayAuth: {} })
      },
    ),
    promiseOf({ promise: 'any text has a reading', runs: 75 }, text, (any) => {
      for (const verdict of [readConnect(any), readConnectRequest(any)]) {
        strictEqual(typeof verdict.ok, 'boolean')
      }
      readChallenge(any)
      readEvent(any)
      const response = readResponse(any)
      if (response !== undefined) strictEqual(typeof refusalCodeOf(response), 'string')
    }),
  ])
