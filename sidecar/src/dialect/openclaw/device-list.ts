/** The gateway's list of devices, asked for again while the gateway is writing it. */

import { CallRefused, type OperatorChannel } from './operator-channel.ts'

/** The gateway's own word for a failure that may pass. */
const UNAVAILABLE = 'UNAVAILABLE'
const RETRIES_MAX = 5

/**
 * A gateway of 2026.5 reads its list while it writes it, and says so: the next answer is better.
 * Throws what `call` throws.
 */
export async function callDeviceList(channel: Pick<OperatorChannel, 'call'>): Promise<unknown> {
  for (let again = 1; ; again += 1) {
    try {
      return await channel.call('device.pair.list', {})
    } catch (error) {
      const isBusy = error instanceof CallRefused && error.code === UNAVAILABLE
      if (!isBusy || again > RETRIES_MAX) throw error
    }
  }
}
