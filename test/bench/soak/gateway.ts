/** A gateway in its own process that checks every byte it gets, and tells its parent of each stream. */

import { startSoakServer, type Got } from '../../kit/soak.ts'
import { SOAK } from './plans.ts'

export type GatewayReady = { readonly url: string }
export type GatewayGot = Got & { readonly seed: number }

const server = await startSoakServer(SOAK, (seed, got) => {
  process.send?.({ seed, ...got } satisfies GatewayGot)
})
process.on('disconnect', () => process.exit())
process.send?.({ url: server.url } satisfies GatewayReady)
