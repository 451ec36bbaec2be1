/** Whether the API server can be reached and answers everything the sidecar asks. */

import { NBF_SKEW_S } from '../authn/claims.ts'
import { messageOf } from '../lib/errors.ts'
import { examineAllowList } from './allow-list.ts'
import { nameOf } from '../kube/api-server.ts'
import { KubeClient } from '../kube/client.ts'
import { locateApiServer, type KubeLocation } from '../kube/in-cluster.ts'
import { OwnCredentials } from '../kube/own-credentials.ts'
import { fail, ok, remedyFor, warn } from './finding.ts'
import type { DoctorContext, Finding } from './finding.ts'
import { examineKeys } from './keys.ts'
import { examineOwnToken, readOwnToken } from './own-token.ts'
import { examineReviews } from './reviews.ts'
import { examineRights } from './rights.ts'

/** For each request, in milliseconds. At most three are made one after the other. */
const DEADLINE_MS = 5000
/** The rights in all namespaces are asked for together: `CONCURRENCY` at once, the rest wait. */
const CONCURRENCY = 8
const QUEUE = 2048
const SKEW_MS_MAX = 5000
/** From here on tokens are refused: fresh ones, or those that are about to be renewed. */
const TOLERATED_MS = NBF_SKEW_S * 1000

export async function examineCluster(context: DoctorContext): Promise<readonly Finding[]> {
  const { config, env, readFile, clock } = context
  let location: KubeLocation
  try {
    location = locateApiServer(config.kubernetes, env)
  } catch (error) {
    return [fail('api-server', messageOf(error), "Or run this in the sidecar's container.")]
  }
  const credentials = new OwnCredentials({ ...location, readFile, clock })
  if (credentials.token === '' || credentials.ca === '') {
    const what = `${nameOf(location.apiServer)} was not asked: the sidecar's token or the CA cannot be read`
    return [fail('api-server', what, 'Fix the files first.')]
  }
  const clients: KubeClient[] = []
  // One client for each check, so that no check suffers from the failures of another.
  const connect = () => {
    const client = new KubeClient({
      apiServer: location.apiServer,
      credentials,
      clock,
      concurrency: CONCURRENCY,
      queue: QUEUE,
      faultCode: 'review_unavailable',
      onOwnCredentialRefused() {},
    })
    clients.push(client)
    return client
  }
  try {
    return await examineThrough(connect, { ...context, location, token: credentials.token })
  } finally {
    await Promise.all(clients.map((client) => client.close()))
  }
}

type ApiServerContext = DoctorContext & { readonly location: KubeLocation; readonly token: string }

async function examineThrough(
  connect: () => KubeClient,
  context: ApiServerContext,
): Promise<readonly Finding[]> {
  const { config, clock, token } = context
  const reached = await examineApiServer(connect(), context)
  if (reached.some(({ level }) => level === 'fail')) return reached
  const ownToken = readOwnToken(token)
  const common = { config, deadlineMs: DEADLINE_MS }
  const checks = [
    examineKeys({ ...common, client: connect(), clock, token, ownToken }),
    examineRights({ ...common, client: connect() }),
    examineReviews({ ...common, client: connect(), token }),
    examineAllowList({ ...common, client: connect(), clock }),
  ]
  return [
    ...reached,
    ...examineOwnToken(ownToken, clock.now()),
    ...(await Promise.all(checks)).flat(),
  ]
}

/** `/version` answers callers without a credential or with a valid one, and nobody else. */
async function examineApiServer(
  client: KubeClient,
  { clock, location }: ApiServerContext,
): Promise<readonly Finding[]> {
  const server = nameOf(location.apiServer)
  const askedAt = clock.now()
  try {
    const request = { method: 'GET', path: '/version', deadlineMs: DEADLINE_MS } as const
    const { body, date } = await client.request(request)
    const { gitVersion } = (body ?? {}) as { gitVersion?: unknown }
    if (typeof gitVersion !== 'string') {
      const what = `the server at ${server} is not a Kubernetes API server`
      return [fail('api-server', what, 'Correct kubernetes.apiServer.')]
    }
    const reached = ok(
      'api-server',
      `Kubernetes ${gitVersion} at ${server} accepts the sidecar's token`,
    )
    return [reached, ...compareClocks(date, askedAt, clock.now())]
  } catch (error) {
    const refusal =
      `Mount a token for the API server's audience at ${location.tokenFile}, ` +
      'and check that its ServiceAccount exists.'
    const what = `${server}: ${messageOf(error).replace(/\.$/, '')}; the other cluster checks were skipped`
    return [fail('api-server', what, remedyFor(error, refusal))]
  }
}

/** The header is cut to whole seconds, and was written between the request and the answer. */
function compareClocks(date: string | undefined, askedAt: number, answeredAt: number): Finding[] {
  const theirs = Date.parse(date ?? '')
  if (Number.isNaN(theirs)) return []
  const behindMs = theirs - answeredAt
  const aheadMs = askedAt - (theirs + 999)
  if (Math.max(behindMs, aheadMs) <= SKEW_MS_MAX) {
    return [ok('clock', `within ${SKEW_MS_MAX / 1000} s of the API server's clock`)]
  }
  const skew =
    behindMs > aheadMs
      ? `${Math.round(behindMs / 1000)} s behind`
      : `${Math.round(aheadMs / 1000)} s ahead of`
  const remedy =
    "Synchronize the nodes' clocks: token lifetimes are checked by the sidecar's clock."
  const what = `${skew} the API server's clock`
  if (Math.max(behindMs, aheadMs) <= TOLERATED_MS) return [warn('clock', what, remedy)]
  const effect = behindMs > aheadMs ? 'fresh tokens are refused' : 'tokens expire too early'
  return [fail('clock', `${what}, more than the ${NBF_SKEW_S} s tolerated: ${effect}`, remedy)]
}
