/** Whom the running sidecar has just refused, and why. */

import { localOriginOf } from '../config/addresses.ts'
import { callAdmin } from '../edge/admin-call.ts'
import type { Status } from '../edge/status.ts'
import { fail, ok, warn, type DoctorContext, type Finding } from './finding.ts'

type Refusal = Status['refusals'][number]

const NAME = 'refusals'
const DEADLINE_MS = 5000
const STATUS_BYTES_MAX = 1024 * 1024
/** How long ago a refusal is of interest, in milliseconds. */
const RECENT_MS = 10 * 60_000
const CODES_MAX = 5
/** From this many proven pods at one address on it is not theirs. */
const SNAT_PODS_MIN = 2

/** Finds nothing where no sidecar answers: another check says so. */
export async function examineRefusals({
  config,
  clock,
}: DoctorContext): Promise<readonly Finding[]> {
  const origin = localOriginOf(config.listen.admin)
  if (origin === undefined) return []
  const call = { origin, method: 'GET', path: '/status', clock } as const
  try {
    const limits = { deadlineMs: DEADLINE_MS, bytesMax: STATUS_BYTES_MAX }
    const { status, text } = await callAdmin({ ...call, ...limits })
    if (status !== 200) return describeSilence(text)
    const { at, refusals } = JSON.parse(text) as Status
    const since = Date.parse(at) - RECENT_MS
    return describe(refusals.filter(({ lastAt }) => Date.parse(lastAt) >= since))
  } catch {
    return []
  }
}

/** The sidecar says why it shows no status; another server does not. */
function describeSilence(text: string): readonly Finding[] {
  const reason = text.trim()
  if (!reason.startsWith('the status is ')) return []
  return [warn(NAME, `recent refusals are not known: ${reason}`, 'Read the audit lines instead.')]
}

function describe(refusals: readonly Refusal[]): readonly Finding[] {
  if (refusals.length === 0) return [ok(NAME, 'none in the last 10 minutes')]
  const byCode = Object.entries(Object.groupBy(refusals, ({ code }) => code))
    .map(([code, some]) => ({ code, some, count: sum(some) }))
    .toSorted((one, other) => other.count - one.count)
  const snat = findSnat(refusals)
  const shown = byCode.slice(0, CODES_MAX).map(({ code, some, count }) => {
    const [latest] = some
    const what = `${count} × ${code}, ${describeCallers(some)}. ${latest?.message ?? ''}`
    return warn(NAME, what, `See runbook.md#${code}.`)
  })
  const rest = byCode.slice(CODES_MAX).map(({ code, count }) => `${count} × ${code}`)
  const more = rest.length === 0 ? [] : [warn(NAME, rest.join(', '), 'See runbook.md.')]
  return [...snat, ...shown, ...more]
}

const sum = (refusals: readonly Refusal[]): number =>
  refusals.reduce((total, { count }) => total + count, 0)

/** The latest caller, and how many others there are. */
function describeCallers(refusals: readonly Refusal[]): string {
  const [latest] = refusals
  const others = refusals.length - 1
  const more = others === 0 ? '' : ` and ${others} more`
  return `last at ${latest?.lastAt} by ${describePod(latest?.pod)} at ${latest?.address}${more}`
}

function describePod(pod: Refusal['pod']): string {
  if (pod === undefined) return 'an unknown pod'
  const { namespace, podName, serviceAccount } = pod
  return podName === undefined
    ? `ServiceAccount ${namespace}/${serviceAccount}`
    : `pod ${namespace}/${podName} (ServiceAccount ${serviceAccount})`
}

/** Several pods have proven who they are, and all came from one address that is of none of them. */
function findSnat(refusals: readonly Refusal[]): readonly Finding[] {
  const elsewhere = refusals.filter(
    ({ code, isSigned }) => code === 'source_address_mismatch' && isSigned,
  )
  const byAddress = Object.entries(Object.groupBy(elsewhere, ({ address }) => address))
  return byAddress.flatMap(([address, some = []]) => {
    const pods = new Set(some.map(({ pod }) => `${pod?.namespace}/${pod?.podName}`)).size
    if (pods < SNAT_PODS_MIN) return []
    const what = `${pods} pods were refused at ${address}, which is not the address of any of them: the network hides the addresses of pods (source_address_mismatch, ${sum(some)} times)`
    const remedy =
      'Turn off masquerading (SNAT) between workers and this pod, or proxies in between; if that is impossible, set k8sTrust.sourceAddress to report.'
    return [fail('source-address', what, remedy)]
  })
}
