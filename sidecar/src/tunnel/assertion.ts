/** The assertion: a short-lived JWT by which a gateway can prove that the identity came from us. */

import { randomUUID } from 'node:crypto'
import { exportJWK, generateKeyPair, SignJWT, type JSONWebKeySet } from 'jose'
import type { Clock } from '../clock.ts'
import type { Identity } from '../identity.ts'

export const ASSERTION_ISSUER = 'openclaw-auth-sidecar'
/** Seconds an assertion may be used after it was made. */
const LIFETIME_S = 60
const KEY_ID = 'assertion'

export type AssertionSigner = {
  readonly sign: (identity: Identity, role: string) => Promise<string>
  /** The public key, as published on the admin port. */
  readonly jwks: JSONWebKeySet
}

/** Makes a signer with an Ed25519 key of its own, kept in memory and gone with the process. */
export async function createAssertionSigner(
  audience: string,
  clock: Clock,
): Promise<AssertionSigner> {
  const { publicKey, privateKey } = await generateKeyPair('EdDSA')
  const kid = `${KEY_ID}-${randomUUID()}`
  const jwk = await exportJWK(publicKey)
  return {
    jwks: { keys: [{ ...jwk, kid, alg: 'EdDSA', use: 'sig' }] },
    sign(identity, role) {
      const nowS = Math.floor(clock.now() / 1000)
      const { namespace, serviceAccount, podName, podUid, nodeName, credentialId } = identity
      return new SignJWT({
        role,
        'kubernetes.io': {
          namespace,
          serviceaccount: { name: serviceAccount },
          pod: { name: podName, uid: podUid },
          ...(nodeName === undefined ? {} : { node: { name: nodeName } }),
          ...(credentialId === undefined ? {} : { credentialId }),
        },
      })
        .setProtectedHeader({ alg: 'EdDSA', kid, typ: 'JWT' })
        .setIssuer(ASSERTION_ISSUER)
        .setSubject(`system:serviceaccount:${namespace}:${serviceAccount}`)
        .setAudience(audience)
        .setJti(randomUUID())
        .setIssuedAt(nowS)
        .setExpirationTime(nowS + LIFETIME_S)
        .sign(privateKey)
    },
  }
}
