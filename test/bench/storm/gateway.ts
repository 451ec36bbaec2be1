/** The gateway of a storm, in its own process: it can stop and come back on its port. */

import { setTimeout as sleep } from 'node:timers/promises'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import { createPairedDevices } from '../../kit/paired-devices.ts'

type GatewayRequest = { readonly protocol: 'stream' | 'openclaw'; readonly secret: string }
/** Makes the gateway stop, as in a crash, and come back after this time. */
type GatewayRestart = { readonly downMs: number }
export type GatewayReady = { readonly url: string }

const serve = async ({ protocol, secret }: GatewayRequest): Promise<void> => {
  // The records of devices outlive a restart, as they do on a gateway's volume.
  const options = protocol === 'openclaw' ? createPairedDevices(secret).gateway : {}
  let stub = await startGatewayStub(options)
  const { port } = stub
  const restart = async ({ downMs }: GatewayRestart): Promise<void> => {
    for (const connection of stub.connections) connection.terminate()
    await stub.close()
    await sleep(downMs)
    stub = await startGatewayStub({ ...options, port })
  }
  process.on('message', (order: GatewayRestart) => void restart(order))
  process.on('disconnect', () => process.exit())
  process.send?.({ url: stub.url } satisfies GatewayReady)
}

if (import.meta.main) await serve(JSON.parse(process.argv[2] ?? '') as GatewayRequest)
