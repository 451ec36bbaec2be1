/** Whether both ports answer at the pod's own addresses, where the kubelet and workers dial them. */

import { isLoopbackHost, localOriginOf, type Address } from '../config/addresses.ts'
import { callAdmin } from '../edge/admin-call.ts'
import { checkGateway } from '../edge/gateway-check.ts'
import { bracketed } from '../lib/address.ts'
import type { Clock } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import { listDialable } from '../lib/own-addresses.ts'
import { fail, ok, warn, type DoctorContext, type Finding } from './finding.ts'

const NAME = 'addresses'
/** As the kubelet's probes of the shipped manifests, in milliseconds. */
const PROBE_DEADLINE_MS = 3000

type Port = {
  readonly option: 'listen.admin' | 'listen.workers'
  readonly listen: Address
  /** Those who dial it. */
  readonly callers: string
  /** Resolves with what is wrong at an address of this machine, or `undefined`. */
  readonly dial: (host: string) => Promise<string | undefined>
}

/** Finds nothing where no sidecar answers: another check says so. */
export async function examineAddresses({
  config,
  clock,
  interfaces,
}: DoctorContext): Promise<readonly Finding[]> {
  const { admin, workers } = config.listen
  const origin = localOriginOf(admin)
  if (origin === undefined || (await probe(origin, clock)) !== undefined) return []
  const addresses = listDialable(interfaces)
  const ports: readonly Port[] = [
    {
      option: 'listen.admin',
      listen: admin,
      callers: "the kubelet's probes",
      dial: (host) => probe(`http://${host}:${admin.port}`, clock),
    },
    {
      option: 'listen.workers',
      listen: workers,
      callers: 'workers',
      dial: (host) => checkGateway({ url: new URL(`ws://${host}:${workers.port}`), clock }),
    },
  ]
  const findings = await Promise.all(ports.map((port) => examinePort(port, addresses)))
  return findings.flat()
}

/** A TLS listener is only connected to, which costs it nothing and leaves no line in the audit. */
async function examinePort(
  { option, listen, callers, dial }: Port,
  addresses: readonly string[],
): Promise<readonly Finding[]> {
  if (isLoopbackHost(listen.host)) {
    const what = `${option} is on loopback, where ${callers} cannot reach it`
    return [warn(NAME, what, remedyOf(listen))]
  }
  if (listen.port === 0) {
    const what = `${option} has port 0: nobody can tell whether ${callers} reach it`
    return [warn(NAME, what, 'Set a fixed port.')]
  }
  if (addresses.length === 0) {
    const what = `no network but loopback is here: nobody can tell whether ${callers} reach ${option}`
    return [warn(NAME, what, "Run this in the sidecar's container.")]
  }
  const outcomes = await Promise.all(
    addresses.map(bracketed).map(async (host) => ({
      place: `${host}:${listen.port}`,
      objection: await dial(host),
    })),
  )
  return [judge({ option, listen, callers }, outcomes)]
}

type Outcome = { readonly place: string; readonly objection: string | undefined }

function judge(
  { option, listen, callers }: Omit<Port, 'dial'>,
  outcomes: readonly Outcome[],
): Finding {
  const good = outcomes.flatMap(({ place, objection }) => (objection === undefined ? place : []))
  const bad = outcomes.flatMap(({ objection }) => objection ?? [])
  if (bad.length === 0) return ok(NAME, `${option} answers at ${good.join(' and ')}`)
  const what = `${callers} cannot reach ${option}: ${bad.join('; ')}`
  if (good.length === 0) return fail(NAME, what, remedyOf(listen))
  const remedy = `${remedyOf(listen)} It is enough if the pod's own address answers.`
  return warn(NAME, `${what}; it answers at ${good.join(' and ')}`, remedy)
}

const remedyOf = ({ port }: Address): string =>
  `Listen on [::]:${port}, which is every address of both families.`

/** What a liveness probe of the kubelet would find; `undefined` if nothing is wrong. */
async function probe(origin: string, clock: Clock): Promise<string | undefined> {
  const call = { origin, method: 'GET', path: '/livez', clock } as const
  try {
    const { status } = await callAdmin({ ...call, deadlineMs: PROBE_DEADLINE_MS })
    return status === 200 ? undefined : `${origin} answered ${status}`
  } catch (error) {
    return messageOf(error)
  }
}
