/** The cluster of a storm, in its own process: an API server with limited capacity, its pods and their tokens. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { startKubeApi } from '../../kit/kube-api.ts'
import type { PaceOptions } from '../../kit/kube-pace.ts'

export type ClusterRequest = {
  readonly directory: string
  readonly workers: number
  /** For TokenReviews, and for the GETs of single pods. */
  readonly reviews: PaceOptions
  readonly podGets: PaceOptions
}

export type ClusterReady = {
  readonly url: string
  readonly caFile: string
  readonly tokenFile: string
  /** JSON of all `StormWorker`s. */
  readonly workersFile: string
}

/** A pod's address and the token it shows. */
export type StormWorker = { readonly address: string; readonly token: string }

export type ClusterCounts = {
  readonly tokenReviews: number
  readonly podGets: number
  readonly lists: number
}

const NAMESPACE = 'openclaw'
const SERVICE_ACCOUNT = 'openclaw-worker'
/** A pod in a real cluster has some KiB of specification, conditions and managed fields. */
const PADDING = 'x'.repeat(6 * 1024)

const serve = async ({ directory, workers, reviews, podGets }: ClusterRequest): Promise<void> => {
  const api = await startKubeApi({ paces: { tokenReviews: reviews, podGets } })
  const listed: StormWorker[] = []
  for (let n = 0; n < workers; n += 1) {
    const name = `worker-${n}`
    const address = `127.${1 + (n >> 14)}.${(n >> 7) & 127}.${1 + (n & 127)}`
    api.createPod({
      namespace: NAMESPACE,
      name,
      serviceAccount: SERVICE_ACCOUNT,
      ips: [address],
      nodeName: `node-${n % 100}`,
    })
    const pod = api.patchPod(NAMESPACE, name, { metadata: { annotations: { padding: PADDING } } })
    listed.push({ address, token: api.mintToken({ pod }) })
  }
  const workersFile = join(directory, 'workers.json')
  writeFileSync(workersFile, JSON.stringify(listed))
  process.on('message', () => {
    const { tokenReviews, podGets: gets, lists } = api.counts
    process.send?.({ tokenReviews, podGets: gets, lists } satisfies ClusterCounts)
  })
  process.on('disconnect', () => process.exit())
  const { caFile, tokenFile } = await api.files(directory)
  process.send?.({ url: api.url, caFile, tokenFile, workersFile } satisfies ClusterReady)
}

if (import.meta.main) await serve(JSON.parse(process.argv[2] ?? '') as ClusterRequest)
