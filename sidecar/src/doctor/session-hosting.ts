/** Workers that offer to host sessions against the policy: the running sidecar's metrics count them. */

import { localOriginOf } from '../config/addresses.ts'
import { callAdmin } from '../edge/admin-call.ts'
import { ok, warn, type DoctorContext, type Finding } from './finding.ts'

const NAME = 'session-hosting'
const FORBIDDEN = /^openclaw_k8s_session_hosting_forbidden\{namespace="([^"]*)"\} (\d+)$/gm
/** A metric that the sidecar always has. */
const OURS = 'openclaw_k8s_build_info'
const DEADLINE_MS = 5000
const METRICS_BYTES_MAX = 4 * 1024 * 1024
const REMEDY =
  'Allow it with gateway.sessionHosting and allowSessionHosting, or run these nodes without --session-host.'

/** Finds nothing where no sidecar answers: another check says so. */
export async function examineHosting({
  config,
  clock,
}: DoctorContext): Promise<readonly Finding[]> {
  const origin = localOriginOf(config.listen.admin)
  if (config.gateway.protocol !== 'openclaw' || origin === undefined) return []
  const call = { origin, method: 'GET', path: '/metrics', clock } as const
  try {
    const limits = { deadlineMs: DEADLINE_MS, bytesMax: METRICS_BYTES_MAX }
    const { text } = await callAdmin({ ...call, ...limits })
    return text.includes(OURS) ? [readOffers(text)] : []
  } catch {
    return []
  }
}

function readOffers(metrics: string): Finding {
  const offers = [...metrics.matchAll(FORBIDDEN)].map(([, namespace = '', count]) => ({
    namespace,
    count: Number(count),
  }))
  if (offers.length === 0) return ok(NAME, 'the gateway does not tell which workers offer it')
  const wrong = offers.filter(({ count }) => count > 0)
  if (wrong.length === 0) return ok(NAME, 'no worker offers it against the policy')
  const where = wrong.map(({ namespace, count }) => `${count} in namespace ${namespace}`)
  const what = `workers offer to host sessions, which the policy forbids: ${where.join(', ')}; a session placed there fails`
  return warn(NAME, what, REMEDY)
}
