/** Reads the frames of OpenClaw's protocol v4 that a peer sends; anything else is `undefined`. */

export type Fields = Readonly<Record<string, unknown>>

export type RequestFrame = { readonly id: string; readonly method: string; readonly params: Fields }

export type Connect = {
  readonly minProtocol: number
  readonly maxProtocol: number
  readonly client: {
    readonly id: string
    readonly mode: string
    readonly platform: string
    readonly deviceFamily: string
  }
  readonly role: string
  readonly scopes: readonly string[]
  readonly auth: {
    readonly token: string | undefined
    readonly deviceToken: string | undefined
    readonly bootstrapToken: string | undefined
    readonly password: string | undefined
  }
  readonly device: Device | undefined
}

export type Device = {
  /** Hex SHA-256 of the raw public key. */
  readonly id: string
  /** The raw Ed25519 key, base64url. */
  readonly publicKey: string
  readonly signature: string
  /** Milliseconds since the epoch. */
  readonly signedAt: number
  readonly nonce: string
}

export function readRequest(message: Buffer): RequestFrame | undefined {
  const frame = parseObject(message)
  if (frame === undefined || frame['type'] !== 'req') return undefined
  const { id, method, params } = frame
  if (typeof id !== 'string' || typeof method !== 'string') return undefined
  return { id, method, params: isFields(params) ? params : {} }
}

export function readConnect(params: Fields): Connect | undefined {
  const { minProtocol, maxProtocol, role, auth = {} } = params
  const client = readClient(params['client'])
  const scopes = readScopes(params['scopes'])
  const device = readDevice(params['device'])
  if (typeof minProtocol !== 'number' || typeof maxProtocol !== 'number') return undefined
  if (typeof role !== 'string' || !isFields(auth)) return undefined
  if (client === undefined || scopes === undefined) return undefined
  if (params['device'] !== undefined && device === undefined) return undefined
  return { minProtocol, maxProtocol, client, role, scopes, auth: readAuth(auth), device }
}

function readClient(value: unknown): Connect['client'] | undefined {
  if (!isFields(value)) return undefined
  const { id, mode, platform, deviceFamily } = value
  if (typeof id !== 'string' || typeof mode !== 'string') return undefined
  return { id, mode, platform: textOf(platform) ?? '', deviceFamily: textOf(deviceFamily) ?? '' }
}

function readScopes(value: unknown = []): readonly string[] | undefined {
  if (!Array.isArray(value)) return undefined
  return value.every((scope) => typeof scope === 'string') ? value : undefined
}

const readAuth = (auth: Fields): Connect['auth'] => ({
  token: textOf(auth['token']),
  deviceToken: textOf(auth['deviceToken']),
  bootstrapToken: textOf(auth['bootstrapToken']),
  password: textOf(auth['password']),
})

function readDevice(value: unknown): Device | undefined {
  if (!isFields(value)) return undefined
  const { id, publicKey, signature, signedAt, nonce } = value
  if (typeof id !== 'string' || typeof publicKey !== 'string') return undefined
  if (typeof signature !== 'string' || typeof nonce !== 'string') return undefined
  if (typeof signedAt !== 'number') return undefined
  return { id, publicKey, signature, signedAt, nonce }
}

/** The parsed JSON of a field such as `payloadJSON`; `undefined` if it is not JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function parseObject(message: Buffer): Fields | undefined {
  const value = parseJson(message.toString())
  return isFields(value) ? value : undefined
}

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const textOf = (value: unknown): string | undefined =>
  typeof value === 'string' ? value : undefined
