/** ServiceAccount tokens: the cluster's signing keys, genuine tokens and every kind of forged one. */

import {
  createHash,
  generateKeyPair,
  generateKeyPairSync,
  randomUUID,
  sign,
  verify,
} from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import type { KubeStore, Pod } from './kube-store.ts'

export type SigningAlgorithm = 'RS256' | 'ES256'

export type SigningKey = {
  readonly alg: SigningAlgorithm
  readonly kid: string
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

export type TokenRequest = {
  /** Binds the token to this pod, whose namespace and ServiceAccount it then takes. */
  readonly pod?: Pod
  readonly namespace?: string
  readonly serviceAccount?: string
  readonly audiences?: readonly string[]
  readonly expiresInS?: number
  /** When it is issued, in milliseconds since the epoch. */
  readonly nowMs?: number
  /** Claims to replace; `undefined` removes one. */
  readonly claims?: Readonly<Record<string, unknown>>
  /** Header parameters to replace; `undefined` removes one. */
  readonly header?: Readonly<Record<string, unknown>>
  /** `forged`: another key under the true `kid`; `other`: another key under that key's `kid`. */
  readonly key?: 'good' | 'forged' | 'other'
  readonly alg?: SigningAlgorithm
}

const RSA = { modulusLength: 2048 }
const EC = { namedCurve: 'P-256' }

const generate = promisify(generateKeyPair)

const generateSigningKey = async (alg: SigningAlgorithm): Promise<SigningKey> =>
  signingKey(alg, await (alg === 'RS256' ? generate('rsa', RSA) : generate('ec', EC)))

const generateSigningKeySync = (alg: SigningAlgorithm): SigningKey =>
  signingKey(alg, alg === 'RS256' ? generateKeyPairSync('rsa', RSA) : generateKeyPairSync('ec', EC))

const signingKey = (
  alg: SigningAlgorithm,
  pair: { readonly privateKey: KeyObject; readonly publicKey: KeyObject },
): SigningKey => {
  // The real one derives the kid in this way, which makes it a stable name of the key.
  const der = pair.publicKey.export({ type: 'spki', format: 'der' })
  return { alg, kid: createHash('sha256').update(der).digest('base64url'), ...pair }
}

export const publicJwk = (key: SigningKey): Record<string, unknown> => {
  const { kty, ...numbers } = key.publicKey.export({ format: 'jwk' })
  return { use: 'sig', kty, kid: key.kid, alg: key.alg, ...numbers }
}

const base64url = (value: unknown): string =>
  Buffer.from(JSON.stringify(value)).toString('base64url')

/** Any header, any claims, any signature: the raw material of a hostile token. */
export const encodeToken = (
  header: unknown,
  claims: unknown,
  signer: (input: Buffer) => Buffer,
): string => {
  const input = `${base64url(header)}.${base64url(claims)}`
  return `${input}.${signer(Buffer.from(input)).toString('base64url')}`
}

/** A signer for `encodeToken`. JWS wants the two numbers of ECDSA side by side (RFC 7518 §3.4). */
const signerOf =
  (key: SigningKey) =>
  (input: Buffer): Buffer =>
    sign('sha256', input, { key: key.privateKey, dsaEncoding: 'ieee-p1363' })

export const verifySignature = (key: SigningKey, input: string, signature: Buffer): boolean =>
  verify('sha256', Buffer.from(input), { key: key.publicKey, dsaEncoding: 'ieee-p1363' }, signature)

/** A token that differs from `token` in its signature alone, another one for each `n` >= 0. */
export const withBadSignature = (token: string, n: number): string => {
  const dot = token.lastIndexOf('.') + 1
  const signature = Buffer.from(token.slice(dot), 'base64url')
  // XOR with n + 1 can never give the true signature back.
  signature.writeUInt32BE((signature.readUInt32BE(8) ^ (n + 1)) >>> 0, 8)
  return token.slice(0, dot) + signature.toString('base64url')
}

/** The first key of each algorithm, for every cluster of this process: making one is slow. */
const firstKeys = new Map<SigningAlgorithm, Promise<SigningKey>>()
const firstKey = async (alg: SigningAlgorithm): Promise<SigningKey> => {
  const key = firstKeys.get(alg) ?? generateSigningKey(alg)
  firstKeys.set(alg, key)
  return key
}
const foreignKeys = new Map<SigningAlgorithm, SigningKey>()

/** The keys a cluster signs with, and those it still accepts. */
export class KeyRing {
  #accepted: readonly SigningKey[]
  #signing: readonly SigningKey[]

  constructor(keys: readonly SigningKey[]) {
    this.#accepted = keys
    this.#signing = keys
  }

  /** The first algorithm is the one tokens are signed with unless they ask for another. */
  static async create(algs: readonly SigningAlgorithm[]): Promise<KeyRing> {
    return new KeyRing(await Promise.all(algs.map(generateSigningKey)))
  }

  /** As `create`, but clusters of this process share these keys until they rotate theirs. */
  static async shared(algs: readonly SigningAlgorithm[]): Promise<KeyRing> {
    return new KeyRing(await Promise.all(algs.map(firstKey)))
  }

  get accepted(): readonly SigningKey[] {
    return this.#accepted
  }

  async rotate({ keepOld = true }: { readonly keepOld?: boolean } = {}): Promise<void> {
    const fresh = await Promise.all(this.#signing.map((key) => generateSigningKey(key.alg)))
    this.#accepted = keepOld ? [...fresh, ...this.#accepted] : fresh
    this.#signing = fresh
  }

  /** The key to sign with and the `kid` to show. */
  choose(request: TokenRequest): { readonly key: SigningKey; readonly kid: string } {
    const good = this.#signing.find((key) => request.alg === undefined || key.alg === request.alg)
    if (good === undefined) throw new Error(`this cluster has no ${request.alg} key`)
    if (request.key === undefined || request.key === 'good') return { key: good, kid: good.kid }
    const foreign = this.#foreignKey(good.alg)
    return { key: foreign, kid: request.key === 'forged' ? good.kid : foreign.kid }
  }

  #foreignKey(alg: SigningAlgorithm): SigningKey {
    const key = foreignKeys.get(alg) ?? generateSigningKeySync(alg)
    foreignKeys.set(alg, key)
    return key
  }
}

export type Issuing = {
  readonly issuer: string
  readonly keys: KeyRing
  readonly store: KubeStore
  readonly nowMs: () => number
  readonly nodeUid: (name: string) => string
}

/** Mints a token as the TokenRequest API would, then bends it where `request` says so. */
export const mintToken = (issuing: Issuing, request: TokenRequest): string => {
  const { key, kid } = issuing.keys.choose(request)
  const header = { alg: key.alg, kid, ...request.header }
  const claims = { ...trueClaims(issuing, request), ...request.claims }
  return encodeToken(header, claims, signerOf(key))
}

const trueClaims = (issuing: Issuing, request: TokenRequest): Record<string, unknown> => {
  const namespace = request.pod?.metadata.namespace ?? request.namespace ?? 'default'
  const name = request.pod?.spec.serviceAccountName ?? request.serviceAccount ?? 'default'
  const account = issuing.store.serviceAccount(namespace, name)
  if (account === undefined) throw new Error(`there is no ServiceAccount ${namespace}/${name}`)
  const issuedAt = Math.floor((request.nowMs ?? issuing.nowMs()) / 1000)
  const node = request.pod?.spec.nodeName
  return {
    aud: request.audiences ?? ['openclaw-gateway'],
    exp: issuedAt + (request.expiresInS ?? 3600),
    iat: issuedAt,
    iss: issuing.issuer,
    jti: randomUUID(),
    'kubernetes.io': {
      namespace,
      ...(node === undefined ? {} : { node: { name: node, uid: issuing.nodeUid(node) } }),
      ...(request.pod === undefined
        ? {}
        : { pod: { name: request.pod.metadata.name, uid: request.pod.metadata.uid } }),
      serviceaccount: { name, uid: account.metadata.uid },
    },
    nbf: issuedAt,
    sub: `system:serviceaccount:${namespace}:${name}`,
  }
}
