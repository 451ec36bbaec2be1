/** Puts the ways to the API server together: one client for each kind of work, one credential. */

import { findIssuerObjection } from '../authn/issuers.ts'
import { KubeClient } from '../kube/client.ts'
import { locateApiServer } from '../kube/in-cluster.ts'
import { OwnCredentials } from '../kube/own-credentials.ts'
import { WatchClient } from '../kube/watch-stream.ts'
import type { Config } from '../config/schema.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { Runtime } from './runtime.ts'

/** Requests in progress and waiting, separate from TokenReviews, so that neither starves the other. */
const KEYS = { concurrency: 2, queue: 16 }
/** A namespace that answers slowly, or not at all, takes no turn from the others for longer. */
const LISTS = { concurrency: 4, queue: 4096, turnMs: 100 }

/**
 * How long a question about a worker may wait for its turn, in milliseconds: longer than a handshake,
 * so that a worker that was asked to come back finds its review done, or still in its place.
 */
const WORKER_QUEUE_MS = 60_000

export type Cluster = ReturnType<typeof composeCluster>

export function composeCluster(config: Config, runtime: Runtime, metrics: Metrics) {
  const { clock, env, log, network, readFile } = runtime
  const { apiServer, caFile, tokenFile } = locateApiServer(config.kubernetes, env)
  const credentials = new OwnCredentials({ tokenFile, caFile, readFile, clock })
  const objection = findIssuerObjection(credentials.issuer, config.kubernetes.issuers)
  if (objection !== undefined) log.warn(objection)
  const common = {
    apiServer,
    clock,
    network,
    credentials,
    // Logged once by what failed because of it: an admission, a watch, a fetch of the keys.
    onOwnCredentialRefused: () => metrics.ownCredentialErrors.inc(),
  }
  const { concurrency, queue } = config.review
  const line = { concurrency, queue, queueMs: WORKER_QUEUE_MS }
  const reviews = new KubeClient({ ...common, ...line, faultCode: 'review_unavailable' })
  const keys = new KubeClient({
    ...common,
    ...KEYS,
    faultCode: 'keys_unavailable',
    // 403 puts the sidecar into review-only mode.
    onOwnCredentialRefused: (status) => status === 401 && common.onOwnCredentialRefused(),
  })
  const lists = new KubeClient({ ...common, ...LISTS, faultCode: 'pod_unconfirmed' })
  const pods = new KubeClient({ ...common, ...line, faultCode: 'pod_unconfirmed' })
  const watches = new WatchClient(common)
  return {
    credentials,
    reviews,
    keys,
    lists,
    pods,
    watches,
    async close() {
      await Promise.all([reviews, keys, lists, pods, watches].map((client) => client.close()))
    },
  }
}
