/** The assertion: a short-lived JWT by which a gateway can prove that the identity came from us. */

import { generateKeyPairSync, randomUUID, sign as signBytes } from 'node:crypto'
import type { JSONWebKeySet } from 'jose'
import type { Clock } from '../clock.ts'
import type { Identity } from '../identity.ts'

export const ASSERTION_ISSUER = 'openclaw-auth-sidecar'
/** Seconds an assertion may be used after it was made. */
const LIFETIME_S = 60
const KEY_ID = 'assertion'

export type AssertionSigner = {
  readonly sign: (identity: Identity, role: string) => string
  /** The public key, as published on the admin port. */
  readonly jwks: JSONWebKeySet
}

/**
 * Makes a signer with an Ed25519 key of its own, kept in memory and gone with the process. It puts
 * the compact JWS (RFC 7515 §7.1, RFC 8037) together itself: one signature in one go costs an
 * admission a fifth of what WebCrypto takes for it on its way through the thread pool.
 */
export function createAssertionSigner(audience: string, clock: Clock): AssertionSigner {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const kid = `${KEY_ID}-${randomUUID()}`
  const header = encode({ alg: 'EdDSA', kid, typ: 'JWT' })
  return {
    jwks: { keys: [{ ...publicKey.export({ format: 'jwk' }), kid, alg: 'EdDSA', use: 'sig' }] },
    sign(identity, role) {
      const nowS = Math.floor(clock.now() / 1000)
      const { namespace, serviceAccount, podName, podUid, nodeName, credentialId } = identity
      const payload = encode({
        role,
        'kubernetes.io': {
          namespace,
          serviceaccount: { name: serviceAccount },
          pod: { name: podName, uid: podUid },
          ...(nodeName === undefined ? {} : { node: { name: nodeName } }),
          ...(credentialId === undefined ? {} : { credentialId }),
        },
        iss: ASSERTION_ISSUER,
        sub: `system:serviceaccount:${namespace}:${serviceAccount}`,
        aud: audience,
        jti: randomUUID(),
        iat: nowS,
        exp: nowS + LIFETIME_S,
      })
      const signature = signBytes(null, Buffer.from(`${header}.${payload}`), privateKey)
      return `${header}.${payload}.${signature.toString('base64url')}`
    },
  }
}

const encode = (part: object): string => Buffer.from(JSON.stringify(part)).toString('base64url')
