/** Whether the API server can be reached, and asked everything the sidecar has to ask it. */

import { KubeClient } from '../kube/client.ts'
import { locateApiServer, type KubeLocation } from '../kube/in-cluster.ts'
import { OwnCredentials } from '../kube/own-credentials.ts'
import { mendOf, reasonOf } from './explain.ts'
import { fail, ok, warn, type Finding, type Patient } from './finding.ts'
import { examineKeys } from './keys.ts'
import { examineOwnToken, readOwnToken } from './own-token.ts'
import { examineReviews } from './reviews.ts'
import { examineRights } from './rights.ts'

/** For each request, in milliseconds. At most three follow each other. */
const DEADLINE_MS = 5000
/** The rights in all namespaces are asked for together: so many at once, and so many may wait. */
const CONCURRENCY = 8
const QUEUE = 2048
const SKEW_MS_MAX = 5000

export async function examineCluster(patient: Patient): Promise<readonly Finding[]> {
  const { config, env, readFile, clock } = patient
  let location: KubeLocation
  try {
    location = locateApiServer(config.kubernetes, env)
  } catch (error) {
    return [fail('api-server', reasonOf(error), 'Or run this in the container of the sidecar.')]
  }
  const credentials = new OwnCredentials({ ...location, readFile, clock })
  if (credentials.token === '' || credentials.ca === '') {
    const what = `${location.apiServer.origin} was not asked: our token or its CA cannot be read`
    return [fail('api-server', what, 'Mend the files first.')]
  }
  const clients: KubeClient[] = []
  // One for each part, so that none is spoilt by the failures of another.
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
    return await examineThrough(connect, { ...patient, location, token: credentials.token })
  } finally {
    await Promise.all(clients.map((client) => client.close()))
  }
}

type Asking = Patient & { readonly location: KubeLocation; readonly token: string }

async function examineThrough(
  connect: () => KubeClient,
  asking: Asking,
): Promise<readonly Finding[]> {
  const { config, clock, token } = asking
  const reached = await examineApiServer(connect(), asking)
  if (reached.some(({ level }) => level === 'fail')) return reached
  const ownToken = readOwnToken(token)
  const common = { config, deadlineMs: DEADLINE_MS }
  const parts = [
    examineKeys({ ...common, client: connect(), clock, token, ownToken }),
    examineRights({ ...common, client: connect() }),
    examineReviews({ ...common, client: connect(), token }),
  ]
  return [
    ...reached,
    ...examineOwnToken(ownToken, clock.now()),
    ...(await Promise.all(parts)).flat(),
  ]
}

/** `/version` is open to everybody who shows no credential or a good one. */
async function examineApiServer(
  client: KubeClient,
  { clock, location }: Asking,
): Promise<readonly Finding[]> {
  const { origin } = location.apiServer
  const askedAt = clock.now()
  try {
    const request = { method: 'GET', path: '/version', deadlineMs: DEADLINE_MS } as const
    const { body, date } = await client.request(request)
    const { gitVersion } = (body ?? {}) as { gitVersion?: unknown }
    if (typeof gitVersion !== 'string') {
      const mend = 'Correct kubernetes.apiServer.'
      return [fail('api-server', `what answers at ${origin} is no Kubernetes API server`, mend)]
    }
    const reached = ok('api-server', `Kubernetes ${gitVersion} at ${origin} takes our token`)
    return [reached, ...compareClocks(date, askedAt, clock.now())]
  } catch (error) {
    const refusal =
      `Mount a token of the API server's own audience at ${location.tokenFile}, ` +
      'and see that its ServiceAccount exists.'
    const what = `${origin}: ${reasonOf(error)}; nothing else was asked`
    return [fail('api-server', what, mendOf(error, refusal))]
  }
}

/** The header is cut to the second, and was written at some time between question and answer. */
function compareClocks(date: string | undefined, askedAt: number, answeredAt: number): Finding[] {
  const theirs = Date.parse(date ?? '')
  if (Number.isNaN(theirs)) return []
  const behindMs = theirs - answeredAt
  const aheadMs = askedAt - (theirs + 999)
  if (Math.max(behindMs, aheadMs) <= SKEW_MS_MAX) {
    return [ok('clock', `within ${SKEW_MS_MAX / 1000} s of the API server's`)]
  }
  const skew =
    behindMs > aheadMs
      ? `${Math.round(behindMs / 1000)} s behind`
      : `${Math.round(aheadMs / 1000)} s ahead of`
  const mend = 'Synchronise the clocks of the nodes: tokens begin and end by ours.'
  return [warn('clock', `${skew} the API server's`, mend)]
}
