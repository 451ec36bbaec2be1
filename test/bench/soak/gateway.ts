/** A gateway in its own process that checks every byte it gets, and tells its parent of each stream. */

import { setTimeout as sleep } from 'node:timers/promises'
import { startSoakServer, type Got } from '../../kit/soak.ts'
import { FRAME_BYTES_MAX } from './plans.ts'

export type GatewayReady = { readonly url: string }
export type GatewayGot = Got & { readonly seed: number }

const pause = (ms: number): Promise<void> => sleep(ms)
const server = await startSoakServer({ pause, frameBytesMax: FRAME_BYTES_MAX }, (seed, got) => {
  process.send?.({ seed, ...got } satisfies GatewayGot)
})
process.on('disconnect', () => process.exit())
process.send?.({ url: server.url } satisfies GatewayReady)
