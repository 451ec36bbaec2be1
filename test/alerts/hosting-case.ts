/** A worker that hosts sessions against the policy, at a sidecar in this process. */

import { SECRET, startOpenClawRig } from '../kit/openclaw-rig.ts'
import { createPairedDevices } from '../kit/paired-devices.ts'
import type { AlertCase } from './site.ts'

/** To a sidecar as a process, a pod on loopback would be a part of the gateway's host. */
export const HOSTING_CASE: AlertCase = {
  alerts: ['OpenClawSessionHostingForbidden'],
  state: 'a worker offers to host sessions, which the policy forbids',
  async start() {
    const devices = createPairedDevices(SECRET)
    const environments = () =>
      [...devices.paired.keys()].map((deviceId) => ({
        id: `node:${deviceId}`,
        type: 'node',
        status: 'available',
        sessionHost: true,
        workerSlots: { total: 4, available: 3 },
      }))
    const methods = {
      ...devices.gateway.methods,
      'environments.list': () => ({ environments: environments() }),
    }
    const rig = await startOpenClawRig({ devices, gateway: { methods } })
    let end = () => {}
    return {
      admin: new URL(rig.adminUrl).host,
      stop: rig.stop,
      provoke: async () => {
        end = (await rig.startNode()).end
      },
      relieve: () => end(),
    }
  },
}
