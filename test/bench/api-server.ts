/** The stand-in API server in its own process, with the pods and tokens that a measurement needs. */

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { startKubeApi } from '../kit/kube-api.ts'
import type { Pod } from '../kit/kube-store.ts'
import { withBadSignature } from '../kit/kube-tokens.ts'

/**
 * `repeated`: one good token a pod, of few pods; `herd`: the same of many; `distinct`: each token
 * another good one, of few pods; the rest are refused.
 */
export type CredentialKind = 'repeated' | 'herd' | 'distinct' | 'not a JWT' | 'bad signature'
export type CredentialRequest = { readonly kind: CredentialKind; readonly count: number }
export type ApiServerReady = {
  readonly url: string
  readonly caFile: string
  readonly tokenFile: string
}

/** More than one, because a pod may have 1,024 streams and an address 28,000 ports. */
const PODS = 16

const [directory = '.'] = process.argv.slice(2)
const api = await startKubeApi()
const pods: Pod[] = []
const podOf = (n: number): Pod =>
  (pods[n] ??= api.createPod({
    namespace: 'openclaw',
    name: `worker-${n}`,
    serviceAccount: 'openclaw-worker',
    ips: [`127.0.1.${(n % PODS) + 1}`],
    nodeName: 'node-1',
  }))
const mint = (n: number): string =>
  api.mintToken({ pod: podOf(n), audiences: ['openclaw-gateway'] })
const good = Array.from({ length: PODS }, (_, n) => mint(n))

const tokenOf = (kind: CredentialKind, n: number): string => {
  const own = good[n % PODS] ?? ''
  switch (kind) {
    case 'repeated':
      return own
    case 'herd':
      return mint(n)
    case 'distinct':
      return mint(n % PODS)
    case 'not a JWT':
      return `garbage-${n}`
    case 'bad signature':
      return withBadSignature(own, n)
  }
}

let files = 0
process.on('message', ({ kind, count }: CredentialRequest) => {
  const lines = Array.from(
    { length: Math.max(count, PODS) },
    (_, n) => `127.0.1.${(n % PODS) + 1} ${tokenOf(kind, n)}\n`,
  )
  files += 1
  const file = join(directory, `credentials-${files}`)
  void writeFile(file, lines.join('')).then(() => process.send?.(file))
})
process.on('disconnect', () => process.exit())
const { caFile, tokenFile } = await api.files(directory)
process.send?.({ url: api.url, caFile, tokenFile } satisfies ApiServerReady)
