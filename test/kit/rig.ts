/** A whole sidecar between the embedded API server and the gateway stub, on real sockets, in this process. */

import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock, type Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { systemNetwork } from '@openclaw-k8s/auth-sidecar/lib/network.ts'
import type { Runtime } from '@openclaw-k8s/auth-sidecar/compose/runtime.ts'
import { compose } from '@openclaw-k8s/auth-sidecar/compose.ts'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { createLog } from '@openclaw-k8s/auth-sidecar/observe/log.ts'
import { startGatewayStub, type GatewayStubOptions } from '@openclaw-k8s/gateway-stub'
import { startKubeApi, type KubeApi, type KubeApiOptions } from './kube-api.ts'
import type { TokenRequest } from './kube-tokens.ts'
import { parseMetrics } from './parse-metrics.ts'
import { sidecarSettings } from './sidecar-settings.ts'
import { waitUntil } from './wait.ts'
import { connectWorker, type WorkerOptions } from './worker-client.ts'

export type RigOptions = {
  readonly api?: KubeApiOptions
  readonly gateway?: GatewayStubOptions
  /** `path=value`, over the rig's own configuration. */
  readonly set?: readonly string[]
  readonly clock?: Clock
  /** Runs before the sidecar starts, to prepare what it finds. */
  readonly prepare?: (api: KubeApi) => void
  /** Stands in for loopback, since here every pod is on it. */
  readonly isLocalAddress?: (address: string) => boolean
  /** The environment of the process; empty unless told. */
  readonly env?: Readonly<Record<string, string>>
  readonly interfaces?: Runtime['interfaces']
  /** Called with each file that the running sidecar reads. */
  readonly onReadFile?: (path: string) => void
}

type AuditRecord = Readonly<Record<string, unknown>> & { readonly event: string }
export type Rig = Awaited<ReturnType<typeof startRig>>

export const AUDIENCE = 'openclaw-gateway'

/** Everything runs on loopback; pods are 127.0.0.x addresses. Call `stop` in the test's teardown. */
export const startRig = async (options: RigOptions = {}) => {
  const { clock = systemClock } = options
  const directory = await mkdtemp(join(tmpdir(), 'auth-sidecar-'))
  const api = await startKubeApi({ clock, ...options.api })
  options.prepare?.(api)
  const gateway = await startGatewayStub(options.gateway)
  const { caFile, tokenFile } = await api.files(directory)
  const { config } = loadConfig({
    env: {},
    flags: [...sidecarSettings({ gateway, api, caFile, tokenFile }), ...(options.set ?? [])],
    readFile: (path) => readFileSync(path, 'utf8'),
  })
  const audit: AuditRecord[] = []
  const log: string[] = []
  const sidecar = await compose(config, {
    clock,
    network: systemNetwork,
    random: () => 0,
    env: options.env ?? {},
    interfaces: options.interfaces ?? {},
    readFile(path) {
      options.onReadFile?.(path)
      return readFileSync(path, 'utf8')
    },
    log: createLog('trace', { write: (line) => void log.push(line) }),
    writeAudit: (line) => void audit.push(JSON.parse(line) as AuditRecord),
    ...(options.isLocalAddress === undefined ? {} : { isLocalAddress: options.isLocalAddress }),
    version: { version: 'test' },
  })
  const addresses = await sidecar.start()
  const scheme = config.listen.tls === undefined ? 'ws' : 'wss'
  const url = `${scheme}://${addresses.workers}`
  const adminUrl = `http://${addresses.admin}`
  await api.requested('jwks', 1)

  const createPod = (name = 'worker-a', ip = '127.0.0.11') =>
    api.createPod({
      namespace: 'openclaw',
      name,
      serviceAccount: 'openclaw-worker',
      ips: [ip],
      nodeName: 'node-1',
    })

  return {
    api,
    gateway,
    audit,
    /** Everything logged, from the lowest level up. */
    log,
    sidecar,
    url,
    adminUrl,
    port: Number(addresses.workers.split(':').at(-1)),
    /** The sidecar's own token, as the kubelet would swap it. */
    tokenFile,
    createPod,
    /** A token for the gateway's audience. */
    mint: (request: TokenRequest) => api.mintToken({ audiences: [AUDIENCE], ...request }),
    connect: (worker: Omit<WorkerOptions, 'url'>) =>
      connectWorker({ url, localAddress: '127.0.0.11', ...worker }),
    /**
     * The sidecar is ready. By then it has asked the gateway for an upgrade itself, if it is in doubt
     * whether workers get one: a test that counts handshakes does so after this.
     */
    untilReady: () => waitUntil(async () => (await fetch(`${adminUrl}/readyz`)).ok),
    metrics: async () => parseMetrics(await (await fetch(`${adminUrl}/metrics`)).text()),
    readFile: (path: string) => readFile(path, 'utf8'),
    stop: async () => {
      await sidecar.stop()
      await gateway.close()
      await api.stop()
      await rm(directory, { recursive: true })
    },
  }
}
