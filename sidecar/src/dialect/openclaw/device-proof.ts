/** The device proof of a `connect`: what is signed, and whether a worker's signature is valid. */

import { createHash, createPublicKey, verify } from 'node:crypto'
import { decodeBase64url } from '../../lib/base64url.ts'
import type { Code } from '../../denial.ts'
import type { Challenge, ConnectParams } from './frames.ts'

/** What a device signs. */
export type Signed = {
  readonly deviceId: string
  readonly params: Pick<ConnectParams, 'client' | 'role' | 'scopes'>
  readonly signedAt: number
  /** The credential of the same `connect`. */
  readonly token: string
  readonly nonce: string
}

/** How far a signature's time may be from ours, in milliseconds: the gateway's own limit. */
const CLOCK_SKEW_MS_MAX = 120_000
/** Ed25519, raw. */
const PUBLIC_KEY_BYTES = 32
const SIGNATURE_BYTES = 64

/** Version 2 of the text lacks the last two members of version 3. */
export function proofText(version: 'v2' | 'v3', signed: Signed): string {
  const { deviceId, params, signedAt, token, nonce } = signed
  const { client, role = '', scopes = [] } = params
  const members = [deviceId, client.id, client.mode, role, scopes.join(',')]
  const shared = [version, ...members, String(signedAt), token, nonce]
  if (version === 'v2') return shared.join('|')
  return [...shared, lower(client.platform), lower(client.deviceFamily ?? '')].join('|')
}

/** Why the proof is not valid; `undefined` when it is. */
export function findProofObjection(
  params: ConnectParams,
  challenge: Challenge,
  nowMs: number,
): Code | undefined {
  const { device } = params
  if (device === undefined) return 'device_signature_invalid'
  const rawKey = decodeBase64url(device.publicKey)
  if (rawKey?.length !== PUBLIC_KEY_BYTES) return 'device_signature_invalid'
  if (deviceIdOf(rawKey) !== device.id) return 'device_id_mismatch'
  if (device.nonce !== challenge.nonce) return 'device_nonce_mismatch'
  if (Math.abs(nowMs - device.signedAt) > CLOCK_SKEW_MS_MAX) return 'device_clock_skew'
  const { id: deviceId, signedAt, nonce } = device
  const signed = { deviceId, params, signedAt, token: signedTokenOf(params), nonce }
  const texts = [proofText('v3', signed), proofText('v2', signed)]
  return isSignedBy(device, texts) ? undefined : 'device_signature_invalid'
}

/** The first credential present; a password is never signed. */
const signedTokenOf = ({ auth }: ConnectParams): string =>
  auth?.token ?? auth?.deviceToken ?? auth?.bootstrapToken ?? ''

/** A device's id is the hash of its key. */
export const deviceIdOf = (rawKey: Buffer): string =>
  createHash('sha256').update(rawKey).digest('hex')

type Proof = NonNullable<ConnectParams['device']>

function isSignedBy({ publicKey, signature }: Proof, texts: readonly string[]): boolean {
  const bytes = decodeBase64url(signature)
  if (bytes?.length !== SIGNATURE_BYTES) return false
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: publicKey }
  const key = createPublicKey({ key: jwk, format: 'jwk' })
  return texts.some((text) => verify(null, Buffer.from(text), key, bytes))
}

/** ASCII only: the gateway leaves every other letter unchanged. */
const lower = (text: string): string => text.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase())
