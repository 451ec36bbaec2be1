/** The stand-in API server in its own process, with the pods and tokens that a measurement needs. */

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { startKubeApi } from '../kit/kube-api.ts'
import type { Pod } from '../kit/kube-store.ts'
import { withBadSignature } from '../kit/kube-tokens.ts'

/**
 * `repeated`: one good token a pod, of few pods; `herd`: the same of many; `distinct`: each token
 * another good one, of few pods; `other account`: as `distinct`, but of a ServiceAccount that is not
 * a worker's; the rest are refused.
 */
export type CredentialKind =
  | 'repeated'
  | 'herd'
  | 'distinct'
  | 'not a JWT'
  | 'bad signature'
  | 'other account'
export type CredentialRequest = { readonly kind: CredentialKind; readonly count: number }

/** Pods and tokens to try what a proxy refuses, and when. */
export type Probes = {
  /** A live pod, one token of it that is good, and others that are not quite. */
  readonly staying: {
    readonly address: string
    readonly good: string
    readonly late: string
    readonly badSignature: string
    readonly otherAudience: string
    readonly unbound: string
    /** Good until `expiresAtMs`, in milliseconds since the epoch. */
    readonly expiring: string
    readonly expiresAtMs: number
  }
  /** A pod that `delete` deletes, and two tokens of it. */
  readonly leaving: { readonly address: string; readonly shown: string; readonly unseen: string }
  /** A pod of a ServiceAccount that is not a worker's. */
  readonly other: { readonly address: string; readonly token: string }
  /** A pod of a ServiceAccount with the name of a worker's, in another namespace. */
  readonly foreign: { readonly address: string; readonly token: string }
}
/** `delete`: the pod `leaving`, without a grace. `stop`: the API server itself. */
export type ProbeRequest =
  | { readonly probe: 'create'; readonly lifeS: number }
  | { readonly probe: 'delete' | 'stop' }

export type ApiServerReady = {
  readonly url: string
  readonly issuer: string
  readonly caFile: string
  readonly tokenFile: string
}

/** More than one, because a pod may have 1,024 streams and an address 28,000 ports. */
const PODS = 16
const NAMESPACE = 'openclaw'
const AUDIENCES = ['openclaw-gateway']
const WORKER = 'openclaw-worker'
const OTHER = 'other-workload'

const [directory = '.'] = process.argv.slice(2)
const api = await startKubeApi()
// What kube-rbac-proxy asks with the role `system:auth-delegator`, and the one thing workers may do.
api.setRbac({
  subjectAccessReviews: true,
  grants: [
    {
      user: `system:serviceaccount:${NAMESPACE}:${WORKER}`,
      verb: 'get',
      group: '',
      resource: 'services/proxy',
      namespace: NAMESPACE,
      name: 'gateway',
    },
  ],
  // For oauth2-proxy, which fetches the signing keys without a credential.
  publicKeys: true,
})

const createPod = (
  name: string,
  serviceAccount: string,
  address: string,
  namespace = NAMESPACE,
): Pod => api.createPod({ namespace, name, serviceAccount, ips: [address], nodeName: 'node-1' })
const addressOf = (n: number): string => `127.0.1.${(n % PODS) + 1}`
const pods: Pod[] = []
const podOf = (n: number): Pod => (pods[n] ??= createPod(`worker-${n}`, WORKER, addressOf(n)))
const others: Pod[] = []
const otherOf = (n: number): Pod => (others[n] ??= createPod(`other-${n}`, OTHER, addressOf(n)))
const mintFor = (pod: Pod): string => api.mintToken({ pod, audiences: AUDIENCES })
const good = Array.from({ length: PODS }, (_, n) => mintFor(podOf(n)))

const tokenOf = (kind: CredentialKind, n: number): string => {
  const own = good[n % PODS] ?? ''
  switch (kind) {
    case 'repeated':
      return own
    case 'herd':
      return mintFor(podOf(n))
    case 'distinct':
      return mintFor(podOf(n % PODS))
    case 'not a JWT':
      return `garbage-${n}`
    case 'bad signature':
      return withBadSignature(own, n)
    case 'other account':
      return mintFor(otherOf(n % PODS))
  }
}

let files = 0
const writeCredentials = async ({ kind, count }: CredentialRequest): Promise<string> => {
  const lines = Array.from(
    { length: Math.max(count, PODS) },
    (_, n) => `${addressOf(n)} ${tokenOf(kind, n)}\n`,
  )
  files += 1
  const file = join(directory, `credentials-${files}`)
  await writeFile(file, lines.join(''))
  return file
}

const createProbes = (lifeS: number): Probes => {
  const [stays, leaves, alien, abroad] = [
    '127.0.2.1',
    '127.0.2.2',
    '127.0.2.3',
    '127.0.2.4',
  ] as const
  const staying = createPod('staying', WORKER, stays)
  const leaving = createPod('leaving', WORKER, leaves)
  const account = { namespace: NAMESPACE, serviceAccount: WORKER, audiences: AUDIENCES }
  const expiring = api.mintToken({ pod: staying, audiences: AUDIENCES, expiresInS: lifeS })
  const [, claims = ''] = expiring.split('.')
  const { exp } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { exp: number }
  return {
    staying: {
      address: stays,
      good: mintFor(staying),
      late: mintFor(staying),
      badSignature: withBadSignature(mintFor(staying), 0),
      otherAudience: api.mintToken({ pod: staying, audiences: ['elsewhere'] }),
      unbound: api.mintToken(account),
      expiring,
      expiresAtMs: exp * 1000,
    },
    leaving: { address: leaves, shown: mintFor(leaving), unseen: mintFor(leaving) },
    other: { address: alien, token: mintFor(createPod('other', OTHER, alien)) },
    foreign: { address: abroad, token: mintFor(createPod('foreign', WORKER, abroad, 'elsewhere')) },
  }
}

const carryOut = async (request: CredentialRequest | ProbeRequest): Promise<unknown> => {
  if ('kind' in request) return writeCredentials(request)
  switch (request.probe) {
    case 'create':
      return createProbes(request.lifeS)
    case 'delete':
      return api.deletePod(NAMESPACE, 'leaving')
    case 'stop':
      return api.stop()
  }
}

process.on('message', (request: CredentialRequest | ProbeRequest) => {
  void carryOut(request).then((answer) => process.send?.({ answer }))
})
process.on('disconnect', () => process.exit())
const { caFile, tokenFile } = await api.files(directory)
process.send?.({ url: api.url, issuer: api.issuer, caFile, tokenFile } satisfies ApiServerReady)
