/** What runs beside the examination in the same pod: the gateway, and the sidecar itself. */

import { localOriginOf } from '../config/addresses.ts'
import { callAdmin, type AdminAnswer } from '../edge/admin-call.ts'
import { checkGateway } from '../edge/gateway-check.ts'
import { fail, ok, warn, type Finding, type Patient } from './finding.ts'

const READY_DEADLINE_MS = 5000

export async function examineGateway({ config, clock }: Patient): Promise<readonly Finding[]> {
  const url = new URL(config.gateway.url)
  const objection = await checkGateway({ url, clock })
  if (objection === undefined) return [ok('gateway', `something listens on ${url.host}`)]
  return [fail('gateway', objection, 'Start the gateway, or correct gateway.url.')]
}

/** Asks the running sidecar what its readiness probe is told. */
export async function examineSidecar({ config, clock }: Patient): Promise<readonly Finding[]> {
  const origin = localOriginOf(config.listen.admin)
  if (origin === undefined) {
    const what =
      'listen.admin has port 0: where the running sidecar has its admin port is not known'
    return [warn('sidecar', what, 'Name the port, such as 0.0.0.0:9464.')]
  }
  const call = { origin, method: 'GET', path: '/readyz?verbose', clock } as const
  try {
    return [readReadiness(origin, await callAdmin({ ...call, deadlineMs: READY_DEADLINE_MS }))]
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    const mend = 'Start it, or run this in its container with its configuration.'
    return [fail('sidecar', `no sidecar answers at ${origin}: ${reason}`, mend)]
  }
}

function readReadiness(origin: string, { status, text }: AdminAnswer): Finding {
  const lines = text.split('\n')
  const good = lines.filter((line) => line.startsWith('[+] '))
  const bad = lines.filter((line) => line.startsWith('[-] ')).map((line) => line.slice(4))
  if (good.length + bad.length === 0 || (status !== 200 && status !== 503)) {
    const mend = 'Correct listen.admin, or stop what has taken its port.'
    return fail('sidecar', `what answers at ${origin} is no sidecar`, mend)
  }
  if (bad.length === 0) return ok('sidecar', `ready, by ${good.length} checks of its own`)
  const isDrained = bad.includes('serving: draining')
  const mend = isDrained
    ? 'It takes no worker again until its container is restarted.'
    : 'Mend what else is found here; its log says more.'
  return fail('sidecar', `not ready: ${bad.join('; ')}`, mend)
}
