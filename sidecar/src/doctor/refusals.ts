/** Whom the running sidecar has just refused, and why. */

import { localOriginOf } from '../config/addresses.ts'
import { callAdmin, explainNoStatus, type AdminAnswer } from '../edge/admin-call.ts'
import type { Status } from '../edge/status.ts'
import { HOST_ADDRESS } from '../lib/host-network.ts'
import { fail, listed, ok, warn, type DoctorContext, type Finding } from './finding.ts'

type Refusal = Status['refusals'][number]

const NAME = 'refusals'
const DEADLINE_MS = 5000
const STATUS_BYTES_MAX = 1024 * 1024
/** How long ago a refusal is of interest, in milliseconds. */
const RECENT_MS = 10 * 60_000
const CODES_MAX = 5
/** An address that is not a pod's is the network's doing where this many pods were refused at it. */
const SNAT_PODS_MIN = 2

/** Finds nothing where no sidecar answers: another check says so. */
export async function examineRefusals({
  config,
  clock,
  env,
}: DoctorContext): Promise<readonly Finding[]> {
  const origin = localOriginOf(config.listen.admin)
  if (origin === undefined) return []
  const call = { origin, method: 'GET', path: '/status', clock } as const
  try {
    const limits = { deadlineMs: DEADLINE_MS, bytesMax: STATUS_BYTES_MAX }
    const { status, text } = await callAdmin({ ...call, ...limits })
    if (status !== 200) return describeSilence(origin, { status, text })
    const { at, refusals, keys } = JSON.parse(text) as Status
    const since = Date.parse(at) - RECENT_MS
    const recent = refusals.filter(({ lastAt }) => Date.parse(lastAt) >= since)
    return [...findSnat(recent, { ...keys, node: env[HOST_ADDRESS] }), ...describe(recent)]
  } catch {
    return []
  }
}

/** The sidecar says why it shows no status; another server does not. */
function describeSilence(origin: string, answer: AdminAnswer): readonly Finding[] {
  const reason = explainNoStatus(origin, answer).replace(/^it answered \d+: /, '')
  if (!reason.startsWith('the status is ')) return []
  return [warn(NAME, `recent refusals are not known: ${reason}`, 'Read the audit lines instead.')]
}

function describe(refusals: readonly Refusal[]): readonly Finding[] {
  if (refusals.length === 0) return [ok(NAME, 'none in the last 10 minutes')]
  const byCode = Object.entries(Object.groupBy(refusals, ({ code }) => code))
    .map(([code, some]) => ({ code, some, count: sum(some) }))
    .toSorted((one, other) => other.count - one.count)
  const shown = byCode.slice(0, CODES_MAX).map(({ code, some, count }) => {
    const [latest] = some
    const what = `${count} × ${code} within the hour, ${describeCallers(some)}. ${latest?.message ?? ''}`
    return warn(NAME, what, `See runbook.md#${code}.`)
  })
  const rest = byCode.slice(CODES_MAX).map(({ code, count }) => `${count} × ${code}`)
  const more = rest.length === 0 ? [] : [warn(NAME, rest.join(', '), 'See runbook.md.')]
  return [...shown, ...more]
}

const sum = (refusals: readonly Refusal[]): number =>
  refusals.reduce((total, { count }) => total + count, 0)

/** The latest caller, and how many others there are. */
function describeCallers(refusals: readonly Refusal[]): string {
  const [latest] = refusals
  const others = refusals.length - 1
  const more = others === 0 ? '' : ` and ${others} more`
  return `last at ${latest?.lastAt} by ${describeCaller(latest)} at ${latest?.address}${more}`
}

/** Anybody can write any name into a token whose signature was not verified. */
function describeCaller(refusal: Refusal | undefined): string {
  if (refusal?.isOfManyPods === true) return 'unverified tokens with many names'
  if (refusal?.pod === undefined) return 'an unknown pod'
  const { namespace, podName, serviceAccount } = refusal.pod
  const name =
    podName === undefined
      ? `ServiceAccount ${namespace}/${serviceAccount}`
      : `pod ${namespace}/${podName} (ServiceAccount ${serviceAccount})`
  return refusal.isSigned ? name : `an unverified token that names ${name}`
}

type Place = { readonly isReviewOnly: boolean; readonly node: string | undefined }

/**
 * Pods that were refused at addresses that are not theirs. It is the network's doing at the address
 * of a node, and where an address that is not a pod's serves several. All else can be theft.
 */
function findSnat(refusals: readonly Refusal[], { isReviewOnly, node }: Place): readonly Finding[] {
  const elsewhere = refusals.filter(
    // Without signing keys no signature can be verified: that alone does not make a name forged.
    ({ code, pod, isSigned }) =>
      code === 'source_address_mismatch' && pod !== undefined && (isSigned || isReviewOnly),
  )
  const byAddress = Object.values(Object.groupBy(elsewhere, ({ address }) => address))
  const isSnat = (some: readonly Refusal[] = []) =>
    some[0]?.address === node ||
    (podsOf(some).length >= SNAT_PODS_MIN && some.every(({ isOfPod }) => !isOfPod))
  const [snat, others] = [true, false].map((wanted) =>
    byAddress.filter((some) => isSnat(some) === wanted).flatMap((some) => some ?? []),
  )
  return [
    ...describeElsewhere(snat, { isSnat: true, node }),
    ...describeElsewhere(others, { isSnat: false, node }),
  ]
}

type Cause = { readonly isSnat: boolean; readonly node: string | undefined }

function describeElsewhere(
  refusals: readonly Refusal[] = [],
  { isSnat, node }: Cause,
): readonly Finding[] {
  if (refusals.length === 0) return []
  const pods = podsOf(refusals)
  const addresses = distinct(refusals.map(({ address }) => address))
  const isOfNode = node !== undefined && addresses.includes(node)
  const isProven = refusals.every(({ isSigned }) => isSigned)
  const who = pods.length === 1 ? `pod ${pods[0]} was` : `${pods.length} pods were`
  const stolen = pods.length === 1 ? 'the token is stolen' : 'the tokens are stolen'
  const why = `the network hides the addresses of pods${isSnat ? '' : `, or ${stolen}`}`
  const what = `${who} refused at ${listed(addresses)}, ${whose(pods, addresses)}${isOfNode ? ` (${node} is this node)` : ''}: ${why} (source_address_mismatch, ${sum(refusals)} times${isProven ? '' : ', unproven without signing keys'})`
  return [(isSnat && isProven ? fail : warn)('source-address', what, isSnat ? NO_SNAT : TELL_APART)]
}

const podsOf = (refusals: readonly Refusal[]): readonly string[] =>
  distinct(refusals.map(({ pod }) => `${pod?.namespace}/${pod?.podName}`))

const NO_SNAT =
  'Turn off masquerading (SNAT) between workers and this pod, or proxies in between; if that is impossible, set k8sTrust.sourceAddress to report.'
const TELL_APART = `If it is another pod's address (kubectl get pods -A -o wide), delete both pods. If it is a node's or a proxy's: ${NO_SNAT}`

function whose(pods: readonly string[], addresses: readonly string[]): string {
  if (pods.length === 1)
    return addresses.length === 1 ? 'which is not its own' : 'none of which is its own'
  return addresses.length === 1
    ? 'which is not the address of any of them'
    : 'each at an address that is not its own'
}

const distinct = (all: readonly string[]): readonly string[] => [...new Set(all)]
