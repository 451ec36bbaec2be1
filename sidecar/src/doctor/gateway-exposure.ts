/** Whether the gateway listens on loopback alone: at any other address nobody has to pass the sidecar. */

import { isLoopbackHost } from '../config/addresses.ts'
import { checkGateway } from '../edge/gateway-check.ts'
import { bracketed, endpointOf } from '../lib/address.ts'
import { listDialable } from '../lib/own-addresses.ts'
import { fail, type DoctorContext, type Finding } from './finding.ts'

/** Dials the gateway's port at the pod's own addresses, as a stranger would. */
export async function examineExposure({
  config,
  clock,
  interfaces,
}: DoctorContext): Promise<readonly Finding[]> {
  const gateway = new URL(config.gateway.url)
  if (!isLoopbackHost(gateway.hostname)) return []
  const { port } = endpointOf(gateway)
  const dialed = await Promise.all(
    listDialable(interfaces).map(async (address) => {
      const place = `${bracketed(address)}:${port}`
      const objection = await checkGateway({ url: new URL(`ws://${place}`), clock })
      return objection === undefined ? place : undefined
    }),
  )
  const open = dialed.filter((place) => place !== undefined)
  if (open.length === 0) return []
  const what = `the gateway also listens on ${open.join(' and ')}: anyone who reaches that address bypasses the sidecar`
  const remedy = 'Bind the gateway to loopback (gateway.bind: loopback in openclaw.json).'
  return [fail('gateway', what, remedy)]
}
