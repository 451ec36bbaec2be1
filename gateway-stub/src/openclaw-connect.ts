/** Decides whether a `connect` request may enter: its device proof and its shared secret. */

import { createHash, createPublicKey, verify } from 'node:crypto'
import type { Connect, Device } from './openclaw-frames.ts'

/** How the gateway knows who may enter. */
export type AuthMode = 'token' | 'password' | 'trusted-proxy'

export type ConnectTerms = {
  /** The challenge this connection was sent. */
  readonly nonce: string
  /** Milliseconds since the epoch. */
  readonly now: number
  /** The shared secret; without one everybody with a proven device may enter. */
  readonly token: string | undefined
  /** What the secret is; behind a trusted proxy it is the owner's password, and headers identify nodes. */
  readonly authMode?: AuthMode | undefined
  /** Accepted in place of the shared secret, each once. */
  readonly bootstrapTokens: Set<string>
  readonly protocols?: Protocols | undefined
}

/** What the gateway speaks, and the oldest it takes from a node. */
export type Protocols = { readonly spoken: number; readonly nodeMin: number }

export type ConnectRefusal = {
  readonly message: string
  /** `error.details.code`: it steers what a node does next. */
  readonly code: string
  /** Further members of `error.details`. */
  readonly details?: Readonly<Record<string, unknown>>
  /** Default 1008. */
  readonly closeCode?: number
}

export type ConnectVerdict =
  | { readonly ok: true; readonly method: 'none' | 'bootstrap-token' | AuthMode }
  | { readonly ok: false; readonly refusal: ConnectRefusal }

export const PROTOCOLS: Protocols = { spoken: 4, nodeMin: 3 }
const CLOCK_SKEW_MS_MAX = 120_000

const refuse = (code: string, message: string): ConnectVerdict => ({
  ok: false,
  refusal: { code, message },
})

export function judgeConnect(connect: Connect, terms: ConnectTerms): ConnectVerdict {
  const { spoken, nodeMin } = terms.protocols ?? PROTOCOLS
  const oldest = connect.role === 'node' ? nodeMin : spoken
  if (connect.minProtocol > spoken || connect.maxProtocol < oldest) {
    const details = { expectedProtocol: spoken, minimumProbeProtocol: nodeMin }
    const refusal = { code: 'PROTOCOL_MISMATCH', message: 'protocol mismatch' }
    return { ok: false, refusal: { ...refusal, details, closeCode: 1002 } }
  }
  // The proof comes first, so that a forged one cannot use up a bootstrap token.
  return judgeDevice(connect, terms) ?? judgeSecret(connect, terms)
}

function judgeSecret({ auth }: Connect, terms: ConnectTerms): ConnectVerdict {
  if (terms.token === undefined) return { ok: true, method: 'none' }
  const { authMode = 'token' } = terms
  if (isVouchedFor(auth, authMode, terms.token)) return { ok: true, method: authMode }
  if (auth.token !== undefined) {
    return refuse('AUTH_TOKEN_MISMATCH', 'unauthorized: gateway token mismatch')
  }
  if (auth.bootstrapToken === undefined) {
    return refuse('AUTH_TOKEN_MISSING', 'unauthorized: gateway token missing')
  }
  if (terms.bootstrapTokens.delete(auth.bootstrapToken)) {
    return { ok: true, method: 'bootstrap-token' }
  }
  return refuse('AUTH_BOOTSTRAP_TOKEN_INVALID', 'unauthorized: bootstrap token invalid')
}

function isVouchedFor(auth: Connect['auth'], authMode: AuthMode, secret: string): boolean {
  switch (authMode) {
    case 'token':
      return auth.token === secret
    case 'password':
      return auth.password === secret
    case 'trusted-proxy':
      return auth.token === undefined && auth.bootstrapToken === undefined
  }
}

/** `undefined` means that nothing is wrong. */
function judgeDevice(connect: Connect, terms: ConnectTerms): ConnectVerdict | undefined {
  const { device } = connect
  if (device === undefined) return judgeMissingDevice(connect, terms)
  const key = Buffer.from(device.publicKey, 'base64url')
  if (key.length !== 32)
    return refuse('DEVICE_AUTH_PUBLIC_KEY_INVALID', 'device public key invalid')
  if (createHash('sha256').update(key).digest('hex') !== device.id) {
    return refuse('DEVICE_AUTH_DEVICE_ID_MISMATCH', 'device id mismatch')
  }
  if (device.nonce !== terms.nonce) {
    return refuse('DEVICE_AUTH_NONCE_MISMATCH', 'device nonce mismatch')
  }
  if (!(Math.abs(terms.now - device.signedAt) <= CLOCK_SKEW_MS_MAX)) {
    return refuse('DEVICE_AUTH_SIGNATURE_EXPIRED', 'device signature expired')
  }
  if (!isProven(connect, device, key)) {
    return refuse('DEVICE_AUTH_SIGNATURE_INVALID', 'device signature invalid')
  }
  return undefined
}

/** An operator on loopback needs no device; the shared secret is enough. */
function judgeMissingDevice({ role, auth }: Connect, terms: ConnectTerms) {
  const { authMode = 'token', token: secret } = terms
  const shown = authMode === 'token' ? auth.token : auth.password
  if (role === 'operator' && secret !== undefined && shown === secret) return undefined
  const isShown = auth.token !== undefined || auth.password !== undefined
  if (secret === undefined || shown === secret || !isShown) {
    return refuse('DEVICE_IDENTITY_REQUIRED', 'device identity required')
  }
  const kind = authMode === 'token' ? 'TOKEN' : 'PASSWORD'
  const what = shown === undefined ? 'MISSING' : 'MISMATCH'
  const message = `unauthorized: gateway ${kind.toLowerCase()} ${what.toLowerCase()}`
  return refuse(`AUTH_${kind}_${what}`, message)
}

function isProven(connect: Connect, device: Device, rawKey: Buffer): boolean {
  const signature = Buffer.from(device.signature, 'base64url')
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: rawKey.toString('base64url') }
  const key = createPublicKey({ key: jwk, format: 'jwk' })
  return proofTexts(connect, device).some((text) => verify(null, Buffer.from(text), key, signature))
}

/** What a device signs: v3, or v2, which lacks the last two parts. */
function proofTexts({ client, role, scopes, auth }: Connect, device: Device): readonly string[] {
  const token = auth.token ?? auth.deviceToken ?? auth.bootstrapToken ?? ''
  const identity = [device.id, client.id, client.mode, role, scopes.join(',')]
  const shared = [...identity, String(device.signedAt), token, device.nonce]
  const platform = [client.platform.toLowerCase(), client.deviceFamily.toLowerCase()]
  return [['v3', ...shared, ...platform].join('|'), ['v2', ...shared].join('|')]
}
