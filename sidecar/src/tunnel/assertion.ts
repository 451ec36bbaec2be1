/** The assertion: a short-lived JWT that lets a gateway check that the identity came from us. */

import { generateKeyPair, randomUUID, sign as signBytes } from 'node:crypto'
import { promisify } from 'node:util'
import { exportJWK, type JSONWebKeySet } from 'jose'
import type { Clock } from '../lib/clock.ts'
import { userNameOf, type Identity } from '../identity.ts'

const ASSERTION_ISSUER = 'openclaw-auth-sidecar'
/** Seconds for which an assertion is valid. */
const LIFETIME_S = 60
const KEY_ID = 'assertion'

export type AssertionSigner = {
  /** `undefined` where the gateway is to get no assertion. */
  readonly sign: (identity: Identity, role: string) => string | undefined
  /** The public key, as published on the admin port. */
  readonly jwks: JSONWebKeySet
}

/** Signs nothing, and publishes no key. */
export const NO_SIGNER: AssertionSigner = { sign: () => undefined, jwks: { keys: [] } }

/** Makes a signer with a new Ed25519 key, which is kept in memory and dies with the process. */
export async function createAssertionSigner(
  audience: string,
  clock: Clock,
): Promise<AssertionSigner> {
  const { publicKey, privateKey } = await promisify(generateKeyPair)('ed25519')
  const kid = `${KEY_ID}-${randomUUID()}`
  const jwk = await exportJWK(publicKey)
  const header = encode({ alg: 'EdDSA', kid, typ: 'JWT' })
  return {
    jwks: { keys: [{ ...jwk, kid, alg: 'EdDSA', use: 'sig' }] },
    sign(identity, role) {
      const nowS = Math.floor(clock.now() / 1000)
      const input = `${header}.${encode(claimsOf(identity, { role, audience, nowS }))}`
      // Synchronously, on this thread: WebCrypto would take twice the work.
      return `${input}.${signBytes(null, Buffer.from(input), privateKey).toString('base64url')}`
    },
  }
}

type AssertionContext = { readonly role: string; readonly audience: string; readonly nowS: number }

function claimsOf(identity: Identity, { role, audience, nowS }: AssertionContext) {
  const { namespace, serviceAccount, podName, podUid, nodeName, credentialId } = identity
  return {
    role,
    'kubernetes.io': {
      namespace,
      serviceaccount: { name: serviceAccount },
      pod: { name: podName, uid: podUid },
      ...(nodeName === undefined ? {} : { node: { name: nodeName } }),
      ...(credentialId === undefined ? {} : { credentialId }),
    },
    iss: ASSERTION_ISSUER,
    sub: userNameOf({ namespace, serviceAccount }),
    aud: audience,
    jti: randomUUID(),
    iat: nowS,
    exp: nowS + LIFETIME_S,
  }
}

const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
