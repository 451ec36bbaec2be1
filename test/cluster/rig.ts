/** A sidecar in this process, with a ServiceAccount's rights on the real API server and the gateway stub behind it. */

import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { WebSocket } from 'ws'
import { systemClock, type Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { systemNetwork } from '@openclaw-k8s/auth-sidecar/lib/network.ts'
import { compose } from '@openclaw-k8s/auth-sidecar/compose.ts'
import type { Runtime } from '@openclaw-k8s/auth-sidecar/compose/runtime.ts'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { createLog } from '@openclaw-k8s/auth-sidecar/observe/log.ts'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import { waitForProcess } from '../kit/wait.ts'
import {
  closed,
  connectInBand,
  connectWorker,
  type Connected,
  type Refused,
} from '../kit/worker-client.ts'
import { rawFrame } from '../kit/raw-frames.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { GATEWAY, WORKER, type ClusterRig, type Pod } from './cluster-rig.ts'

export type RigOptions = {
  readonly clock?: Clock
  /** `path=value`, over the rig's own configuration. */
  readonly set?: readonly string[]
  /** Where the sidecar believes the API server to be, as a relay in front of it. */
  readonly apiServer?: { readonly url: string; readonly ca: string }
  /** ServiceAccounts on the allow-list. */
  readonly accounts?: readonly string[]
}

export type Rig = Awaited<ReturnType<typeof startRig>>

/** The configuration and runtime of a sidecar whose credential is the shipped ServiceAccount's. */
export const settle = async (cluster: ClusterRig, options: RigOptions = {}) => {
  const { clock = systemClock, apiServer, accounts = [WORKER] } = options
  const directory = mkdtempSync(join(cluster.directory, 'sidecar-'))
  const caFile = join(directory, 'ca.crt')
  const tokenFile = join(directory, 'token')
  writeFileSync(caFile, apiServer?.ca ?? cluster.config.ca)
  const own = { serviceAccount: GATEWAY, audiences: [] }
  writeFileSync(tokenFile, await cluster.mint(own), { mode: 0o600 })
  const identities = accounts.map(
    (account) => `{namespace: ${cluster.namespace}, serviceAccount: ${account}}`,
  )
  const { config } = loadConfig({
    env: {},
    flags: [
      'listen.workers=127.0.0.1:0',
      'listen.admin=127.0.0.1:0',
      'gateway.protocol=stream',
      `kubernetes.apiServer=${apiServer?.url ?? cluster.config.server.origin}`,
      `kubernetes.caFile=${caFile}`,
      `kubernetes.tokenFile=${tokenFile}`,
      `k8sTrust.allowedIdentities=[${identities.join(', ')}]`,
      'limits.failuresPerAddress=0',
      ...(options.set ?? []),
    ],
    readFile: (path) => readFileSync(path, 'utf8'),
  })
  const log: string[] = []
  const runtime: Runtime = {
    clock,
    network: systemNetwork,
    random: Math.random,
    env: {},
    readFile: (path) => readFileSync(path, 'utf8'),
    log: createLog('trace', { write: (line) => void log.push(line) }),
    writeAudit: () => {},
    version: { version: 'test' },
  }
  return { config, runtime, log }
}

export const startRig = async (cluster: ClusterRig, options: RigOptions = {}) => {
  const gateway = await startGatewayStub()
  const set = [`gateway.url=${gateway.url}`, ...(options.set ?? [])]
  const { config, runtime, log } = await settle(cluster, { ...options, set })
  const sidecar = await compose(config, runtime)
  const { workers, admin } = await sidecar.start()
  const url = `ws://${workers}`
  const stop = async () => {
    await sidecar.stop()
    await gateway.close()
  }
  const isReady = async () => (await fetch(`http://${admin}/readyz`)).status === 200
  try {
    await waitForProcess('readiness', READY_WITHIN_MS, isReady)
  } catch (error) {
    await stop()
    throw new Error(log.slice(-3).join(''), { cause: error })
  }

  const connect = (pod: Pod, token: string) => connectWorker({ url, token, localAddress: pod.ip })

  return {
    gateway,
    connect,
    openLean: (pod: Pod, token: string) => openLean(Number(new URL(url).port), pod, token),
    /** With the token in the first frame. */
    connectInBand: (pod: Pod, saToken: string) =>
      connectInBand({
        url,
        localAddress: pod.ip,
        frame: { type: 'connect.request', authMode: 'k8s-sa', saToken, role: 'node' },
      }),
    open: async (pod: Pod, token: string): Promise<WebSocket> => {
      const outcome = await connect(pod, token)
      if (outcome.ok) return outcome.socket
      throw new Error(`refused with ${outcome.status} ${codeOf(outcome)}`)
    },
    metric: async (series: string): Promise<number> => {
      const text = await (await fetch(`http://${admin}/metrics`)).text()
      const line = text.split('\n').find((each) => each.startsWith(`${series} `))
      return Number(line?.slice(series.length + 1))
    },
    stop,
  }
}

const READY_WITHIN_MS = 15_000

export const codeOf = (outcome: Connected | Refused): string =>
  outcome.ok ? 'ok' : (outcome.body as { error: { type: string } }).error.type

/** Ends the stream if there is one, and returns the code. */
export const verdictOf = (outcome: Connected | Refused): string => {
  if (outcome.ok) outcome.socket.terminate()
  return codeOf(outcome)
}

/** When and how a stream ended, on the steady clock. */
export const endOf = async (socket: WebSocket) => {
  const { promise: limit, resolve } = Promise.withResolvers<undefined>()
  const timer = setTimeout(() => resolve(undefined), ENDED_WITHIN_MS)
  const close = await Promise.race([closed(socket), limit])
  clearTimeout(timer)
  const ended = close === undefined ? 'still open' : `${close.code} ${close.reason}`
  return { at: performance.now(), ended }
}

/** FIN and the opcode of a close frame. */
const CLOSE = 0x88

/**
 * A stream that costs this process next to nothing, for tests with a thousand of them: resolves
 * once it is open, with a promise of its end.
 */
const openLean = async (port: number, pod: Pod, token: string) => {
  const lines = upgradeLines('/', [`Authorization: Bearer ${token}`])
  const { status, socket } = await rawUpgrade({ port, localAddress: pod.ip, lines })
  if (status !== 101) throw new Error(`refused with ${status}`)
  const { promise, resolve } = Promise.withResolvers<Awaited<ReturnType<typeof endOf>>>()
  // The sidecar's own frames are small and arrive in one piece; a ping does not end the stream.
  socket.on('data', (chunk: Buffer) => {
    const frame = chunk.subarray(chunk.indexOf(CLOSE))
    if (frame[0] !== CLOSE) return
    socket.end(rawFrame({ first: CLOSE, payload: frame.subarray(2, 4) }))
    const [code, reason] = [frame.readUInt16BE(2), frame.toString('utf8', 4)]
    socket.once('close', () => resolve({ at: performance.now(), ended: `${code} ${reason}` }))
  })
  socket.resume()
  return { end: promise }
}

/** Longer than anything may take: a stream that lives on is a failure, not a wait. */
const ENDED_WITHIN_MS = 30_000
