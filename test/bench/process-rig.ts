/** A sidecar in its own process between the embedded API server and the gateway stub, for measurements. */

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startGatewayStub, type GatewayStubOptions } from '@openclaw-k8s/gateway-stub'
import { startSidecarProcess } from '../kit/sidecar-process.ts'
import { startKubeApi } from '../kit/kube-api.ts'
import { sidecarSettings } from '../kit/sidecar-settings.ts'
import { parseMetrics } from '../kit/parse-metrics.ts'

export type ProcessRigOptions = {
  readonly gateway?: GatewayStubOptions
  /** `path=value`, over the rig's own configuration. */
  readonly set?: readonly string[]
  /** What to run in place of the checkout's own `main.ts`, such as a bundle of it. */
  readonly main?: string
}

/**
 * A container bounds the heap. Without a bound V8 lets garbage lie while memory is plentiful, and
 * what the sidecar really holds could not be distinguished from uncollected garbage.
 */
const NODE_OPTIONS = '--max-old-space-size=64 --max-semi-space-size=4'
const MIB = 1024 * 1024

export const startProcessRig = async (options: ProcessRigOptions = {}) => {
  const directory = await mkdtemp(join(tmpdir(), 'auth-sidecar-'))
  const api = await startKubeApi()
  const gateway = await startGatewayStub(options.gateway)
  const { caFile, tokenFile } = await api.files(directory)
  const settings = [...sidecarSettings({ gateway, api, caFile, tokenFile }), ...(options.set ?? [])]
  const args = ['serve', ...settings.flatMap((each) => ['--set', each])]
  const sidecar = startSidecarProcess(args, {
    env: { NODE_OPTIONS },
    ...(options.main === undefined ? {} : { main: options.main }),
  })
  const { workers, admin } = await sidecar.listening()
  const pod = api.createPod({
    namespace: 'openclaw',
    name: 'worker-a',
    serviceAccount: 'openclaw-worker',
    ips: ['127.0.0.11'],
    nodeName: 'node-1',
  })
  /** Values by series, without the common prefix. */
  const metrics = async (): Promise<ReadonlyMap<string, number>> => {
    return parseMetrics(await (await fetch(`http://${admin}/metrics`)).text(), 'openclaw_k8s_')
  }
  return {
    api,
    gateway,
    sidecar,
    pod,
    host: '127.0.0.1',
    adminPort: Number(admin.split(':').at(-1)),
    port: Number(workers.split(':').at(-1)),
    podAddress: '127.0.0.11',
    token: api.mintToken({ pod, audiences: ['openclaw-gateway'] }),
    metrics,
    /** Resident memory of the sidecar in MiB. */
    rssMib: async () =>
      ((await metrics()).get('process_resident_memory_bytes') ?? Number.NaN) / MIB,
    stop: async () => {
      sidecar.signal('SIGKILL')
      await sidecar.exited
      await gateway.close()
      await api.stop()
      await rm(directory, { recursive: true })
    },
  }
}

/** A fact for the table: what was promised, what was seen, and whether that holds. */
export type Finding = readonly [promise: string, seen: string, holds: boolean]

/** Prints the table; true when every promise holds. */
export const report = (findings: readonly Finding[]): boolean => {
  const width = Math.max(...findings.map(([promise]) => promise.length))
  for (const [promise, seen, holds] of findings) {
    process.stdout.write(`${holds ? 'ok    ' : 'BROKEN'}  ${promise.padEnd(width)}  ${seen}\n`)
  }
  return findings.every(([, , holds]) => holds)
}
