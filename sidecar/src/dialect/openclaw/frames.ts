/** The frames of OpenClaw's gateway protocol, versions 3 and 4, that the sidecar reads and writes. */

import * as z from 'zod'
import { denied, granted, type Verdict } from '../../denial.ts'
import { parseFirstJson } from '../first-json.ts'

/** What the sidecar speaks, and what it expects of a gateway. */
export const PROTOCOL = 4
/** The oldest protocol of a node. Its frames are those of version 4, with fewer members. */
export const NODE_PROTOCOL_MIN = 3

const word = (lengthMax: number) => z.string().min(1).max(lengthMax)

/** Trimmed, as the gateway does before it checks the signature over it. */
const signedWord = word(128).transform((text) => text.trim())

/**
 * The most characters of all commands together: each is matched against every glob of the policy.
 */
const COMMANDS_LENGTH_MAX = 8192
/** The most members of `permissions`. */
const PERMISSIONS_MAX = 256

/**
 * Checked as a whole, not item by item: zod makes an object for every issue, and hundreds of issues
 * cost more than all the rest.
 */
const wordList = ({ countMax, lengthMin = 1, lengthMax = 256 }: ListLimits) =>
  z.custom<readonly string[]>(
    (value) =>
      Array.isArray(value) &&
      value.length <= countMax &&
      value.every((item) => isWord(item, lengthMin, lengthMax)),
  )

type ListLimits = {
  readonly countMax: number
  readonly lengthMin?: number
  readonly lengthMax?: number
}

const isWord = (value: unknown, lengthMin: number, lengthMax: number): boolean =>
  typeof value === 'string' && value.length >= lengthMin && value.length <= lengthMax

const commandList = wordList({ countMax: 1024 }).refine(
  (commands) => commands.join('').length <= COMMANDS_LENGTH_MAX,
)

const permissions = z.custom<Readonly<Record<string, boolean>>>((value) => {
  if (!isObject(value) || Array.isArray(value) || Object.hasOwn(value, '__proto__')) return false
  const entries = Object.entries(value)
  return (
    entries.length <= PERMISSIONS_MAX &&
    entries.every(([name, allowed]) => isWord(name, 1, 256) && typeof allowed === 'boolean')
  )
})

/** The most levels of an object that is passed on unchanged. */
const DEPTH_MAX = 16

/** Not nested too deep to be serialized again, and without a member that sets a prototype. */
function isPlain(value: unknown, depth = 0): boolean {
  if (typeof value !== 'object' || value === null) return true
  if (depth === DEPTH_MAX || Object.hasOwn(value, '__proto__')) return false
  return Object.values(value).every((member) => isPlain(member, depth + 1))
}

/**
 * A node's `connect`. Members not named here are dropped, so that nothing unchecked reaches the
 * gateway. The frame's own limit bounds whatever has no limit here.
 */
const CONNECT = z.object({
  type: z.literal('req'),
  id: word(256),
  method: z.literal('connect'),
  params: z.object({
    minProtocol: z.int(),
    maxProtocol: z.int(),
    client: z.object({
      id: word(64),
      mode: word(64),
      version: word(128),
      platform: signedWord,
      deviceFamily: signedWord.optional(),
      buildId: word(96).optional(),
      modelIdentifier: word(128).optional(),
      timeZone: word(64).optional(),
    }),
    role: word(64).optional(),
    scopes: wordList({ countMax: 64, lengthMin: 0 }).optional(),
    caps: wordList({ countMax: 256 }).optional(),
    commands: commandList.optional(),
    permissions: permissions.optional(),
    computerUse: z.unknown().refine(isPlain).optional(),
    modelCatalog: z.unknown().refine(isPlain).optional(),
    workerRuns: z.unknown().refine(isPlain).optional(),
    pathEnv: z.string().optional(),
    locale: z.string().max(64).optional(),
    userAgent: z.string().max(256).optional(),
    auth: z
      .object({
        token: z.string().optional(),
        deviceToken: z.string().optional(),
        bootstrapToken: z.string().optional(),
      })
      .optional(),
    device: z
      .object({
        id: word(128),
        publicKey: word(128),
        signature: word(256),
        signedAt: z.int().nonnegative(),
        nonce: word(256),
      })
      .optional(),
  }),
})

export type ConnectRequest = z.output<typeof CONNECT>
export type ConnectParams = ConnectRequest['params']

/** Reads a worker's first frame. */
export function readConnect(text: string): Verdict<ConnectRequest> {
  const parsed = CONNECT.safeParse(parseFirstJson(text))
  return parsed.success ? granted(parsed.data) : denied('connect_malformed')
}

const CHALLENGE = z.object({
  type: z.literal('event'),
  event: z.literal('connect.challenge'),
  payload: z.object({
    nonce: word(256),
    ts: z.int().nonnegative(),
    capabilities: wordList({ countMax: 64 }).optional().catch(undefined),
  }),
})

export type Challenge = z.output<typeof CHALLENGE>['payload']

/** The capability of a challenge that asks for a `modelCatalog`. */
export const MODEL_CATALOG = 'model-catalog-snapshot'

export const challengeFrame = ({ nonce, ts, capabilities = [] }: Challenge): string =>
  JSON.stringify({
    type: 'event',
    event: 'connect.challenge',
    payload: { nonce, ts, capabilities },
  })

export const readChallenge = (text: string): Challenge | undefined =>
  CHALLENGE.safeParse(parseJson(text)).data?.payload

const ERROR = z.object({
  code: z.string().max(128).catch(''),
  message: z.string().max(1024).catch(''),
  details: z
    .object({
      code: z.string().max(128).catch(''),
      expectedProtocol: z.int().optional().catch(undefined),
      minimumProbeProtocol: z.int().optional().catch(undefined),
    })
    .optional()
    .catch(undefined),
})

const RESPONSE = z.object({
  type: z.literal('res'),
  id: z.string(),
  ok: z.boolean(),
  payload: z.unknown().optional(),
  error: ERROR.optional().catch(undefined),
})

export type ResponseFrame = z.output<typeof RESPONSE>

export const readResponse = (text: string): ResponseFrame | undefined =>
  RESPONSE.safeParse(parseJson(text)).data

export const PROTOCOL_MISMATCH = 'PROTOCOL_MISMATCH'

/** The most specific code of a refusal; for our log, never for a worker. */
export const refusalCodeOf = ({ error }: ResponseFrame): string => {
  // Gateways before 2026.6 say it in words and numbers only.
  if (error?.details?.expectedProtocol !== undefined) return PROTOCOL_MISMATCH
  return error?.details?.code || error?.code || 'UNKNOWN'
}

const EVENT = z.object({
  type: z.literal('event'),
  event: z.string().max(128),
  payload: z.unknown().optional(),
})

export type EventFrame = z.output<typeof EVENT>

export const readEvent = (text: string): EventFrame | undefined =>
  EVENT.safeParse(parseJson(text)).data

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
