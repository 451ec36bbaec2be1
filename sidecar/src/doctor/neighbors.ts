/** The doctor's neighbors in the pod: the gateway, and the running sidecar. */

import { messageOf } from '../lib/errors.ts'
import { localOriginOf } from '../config/addresses.ts'
import { callAdmin, type AdminAnswer } from '../edge/admin-call.ts'
import { checkGateway, GATEWAY_REMEDY } from '../edge/gateway-check.ts'
import { ALLOW_REVIEWS, fail, ok, warn, type DoctorContext, type Finding } from './finding.ts'

const READY_DEADLINE_MS = 5000

export async function examineGateway({
  config,
  clock,
}: DoctorContext): Promise<readonly Finding[]> {
  const url = new URL(config.gateway.url)
  const objection = await checkGateway({ url, clock })
  if (objection === undefined) return [ok('gateway', `a server listens on ${url.host}`)]
  return [fail('gateway', objection, GATEWAY_REMEDY)]
}

/** Asks the running sidecar for the answer that its readiness probe gets. */
export async function examineSidecar({
  config,
  clock,
}: DoctorContext): Promise<readonly Finding[]> {
  const origin = localOriginOf(config.listen.admin)
  if (origin === undefined) {
    const what = 'listen.admin has port 0: the admin port of the running sidecar is unknown'
    return [warn('sidecar', what, 'Set a fixed port, such as [::]:9464.')]
  }
  const call = { origin, method: 'GET', path: '/readyz?verbose', clock } as const
  try {
    return readReadiness(origin, await callAdmin({ ...call, deadlineMs: READY_DEADLINE_MS }))
  } catch (error) {
    const reason = messageOf(error)
    const remedy = 'Start it, or run this in its container with its configuration.'
    return [fail('sidecar', `no sidecar answers at ${origin}: ${reason}`, remedy)]
  }
}

const WARNED_REMEDIES: readonly (readonly [about: RegExp, remedy: string])[] = [
  [/TokenReviews/, ALLOW_REVIEWS],
  [/serves no keys/, 'See signing-keys.'],
]
const SCOPE_REMEDY = 'Its workers cannot be admitted; all others can. The log has the cause.'

function readReadiness(origin: string, { status, text }: AdminAnswer): readonly Finding[] {
  const lines = text.split('\n')
  const marked = (mark: string) =>
    lines.filter((line) => line.startsWith(mark)).map((line) => line.slice(mark.length))
  const [good, bad, doubtful] = [marked('[+] '), marked('[-] '), marked('[!] ')]
  if (good.length + bad.length === 0 || (status !== 200 && status !== 503)) {
    const remedy = 'Correct listen.admin, or stop the server that uses its port.'
    return [fail('sidecar', `the server at ${origin} is not the sidecar`, remedy)]
  }
  const warnings = doubtful.map((what) =>
    warn('sidecar', what, WARNED_REMEDIES.find(([about]) => about.test(what))?.[1] ?? SCOPE_REMEDY),
  )
  if (bad.length === 0) return [ok('sidecar', `ready, ${good.length} checks passed`), ...warnings]
  const isDrained = bad.includes('serving: draining')
  const remedy = isDrained
    ? 'It accepts no workers until its container is restarted.'
    : 'Fix the other findings first; its log has the details.'
  return [fail('sidecar', `not ready: ${bad.join('; ')}`, remedy), ...warnings]
}
