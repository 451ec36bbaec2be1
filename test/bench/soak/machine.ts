/** Sidecar, API server and gateway of a soak, each in its own process. */

import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { countDescriptors } from '../../kit/descriptors.ts'
import { parseMetrics } from '../../kit/parse-metrics.ts'
import { startSidecarProcess } from '../../kit/sidecar-process.ts'
import type { Got } from '../../kit/soak.ts'
import { mountVolume } from '../../kit/volume.ts'
import { waitForProcess } from '../../kit/wait.ts'
import { ship } from '../peers/shipped.ts'
import type { ApiQuestion, ApiServerReady } from './api-server.ts'
import type { GatewayGot, GatewayReady } from './gateway.ts'
import type { Outage } from './outages.ts'

const CHECKOUT = fileURLToPath(new URL('../../../', import.meta.url))
/** The heap of a small container: what the sidecar holds cannot hide behind uncollected garbage. */
const HEAP = '--max-old-space-size=64'
const READY_MS = 60_000
const KIB = 1024

export const startMachine = async () => {
  const directory = mkdtempSync(join(tmpdir(), 'auth-sidecar-soak-'))
  const api = fork(new URL('api-server.ts', import.meta.url), [directory])
  const [cluster] = (await once(api, 'message')) as [ApiServerReady]
  const gateway = fork(new URL('gateway.ts', import.meta.url))
  const [{ url }] = (await once(gateway, 'message')) as [GatewayReady]

  const config = (generation: number): string => JSON.stringify(configOf(cluster, url, generation))
  const volume = join(directory, 'config')
  mkdirSync(volume)
  const swap = await mountVolume(volume, { 'config.json': config(0) })

  const auditFile = join(directory, 'audit')
  const fd = openSync(auditFile, 'a')
  const shipped = ship(CHECKOUT)
  const sidecar = startSidecarProcess(['serve', '--config', join(volume, 'config.json')], {
    main: shipped.main,
    stdout: fd,
    env: { ...shipped.env, NODE_OPTIONS: `${shipped.env['NODE_OPTIONS'] ?? ''} ${HEAP}` },
  })
  closeSync(fd)
  const { workers, admin } = await sidecar.listening()
  await waitForProcess('the sidecar is ready', READY_MS, async () => {
    return (await fetch(`http://${admin}/readyz`)).ok
  })

  const apiPort = Number(new URL(cluster.url).port)
  const ask = questions(api)
  return {
    sidecar,
    about: shipped.about,
    port: Number(workers.split(':').at(-1)),
    createPod: async (name: string, address: string) => ({
      name,
      address,
      token: (await ask({ what: 'create pod', name, address })) ?? '',
    }),
    deletePod: (name: string) => ask({ what: 'delete pod', name }),
    begin: async (outage: Outage): Promise<void> => {
      if (outage === 'is frozen') api.kill('SIGSTOP')
      else await ask({ what: 'begin', outage })
    },
    end: async (outage: Outage): Promise<void> => {
      if (outage === 'is frozen') api.kill('SIGCONT')
      else await ask({ what: 'end' })
    },
    /** Another policy in the configuration file: each generation allows another ServiceAccount as well. */
    reload: (generation: number) => swap({ 'config.json': config(generation) }),
    atGateway: gatewayResults(gateway),
    metrics: async (): Promise<ReadonlyMap<string, number>> =>
      parseMetrics(await (await fetch(`http://${admin}/metrics`)).text(), 'openclaw_k8s_'),
    rssMib: (): number => {
      const status = readFileSync(`/proc/${sidecar.pid}/status`, 'utf8')
      return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / KIB
    },
    /** Without those to the API server, which it keeps. */
    descriptors: (): number => countDescriptors(sidecar.pid, apiPort),
    audit: (): readonly string[] => readFileSync(auditFile, 'utf8').split('\n').filter(Boolean),
    stop: async (): Promise<void> => {
      sidecar.signal('SIGKILL')
      await sidecar.exited
      api.kill('SIGKILL')
      gateway.kill('SIGKILL')
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** One question after another may be under way; each answer has the number of its question. */
const questions = (child: ChildProcess) => {
  const waiting = new Map<number, (answer: string | undefined) => void>()
  let asked = 0
  child.on('message', ({ id, answer }: { id: number; answer?: string }) => {
    waiting.get(id)?.(answer)
    waiting.delete(id)
  })
  return (question: ApiQuestion): Promise<string | undefined> => {
    asked += 1
    const { promise, resolve } = Promise.withResolvers<string | undefined>()
    waiting.set(asked, resolve)
    child.send({ id: asked, question })
    return promise
  }
}

/** What the gateway says of a stream may come before or after the worker's end of it. */
const gatewayResults = (child: ChildProcess) => {
  const results = new Map<number, PromiseWithResolvers<Got>>()
  const resultOf = (seed: number): PromiseWithResolvers<Got> => {
    const result = results.get(seed) ?? Promise.withResolvers<Got>()
    results.set(seed, result)
    return result
  }
  child.on('message', ({ seed, bytes, problem }: GatewayGot) =>
    resultOf(seed).resolve({ bytes, problem }),
  )
  return {
    wait: (seed: number): Promise<Got> => resultOf(seed).promise,
    forget: (seed: number): void => void results.delete(seed),
  }
}

const configOf = (cluster: ApiServerReady, gatewayUrl: string, generation: number) => ({
  listen: { workers: '127.0.0.1:0', admin: '127.0.0.1:0' },
  gateway: { url: gatewayUrl, protocol: 'stream', connectTimeout: '30s' },
  kubernetes: {
    apiServer: cluster.url,
    caFile: cluster.caFile,
    tokenFile: cluster.tokenFile,
  },
  k8sTrust: {
    audiences: ['openclaw-gateway'],
    allowedIdentities: [
      { namespace: 'openclaw', serviceAccount: 'openclaw-worker' },
      // Its watches begin and end with every other generation.
      ...(generation % 2 === 0 ? [] : [{ namespace: 'openclaw', serviceAccount: 'visitor' }]),
    ],
    maxSessionAge: `${24 + (generation % 2)}h`,
  },
  // Strangers come from few addresses, and each is to be judged. A ping would be one more frame than was sent.
  limits: {
    failuresPerAddress: 0,
    streamsPerPod: 1024,
    pendingPerAddress: 1024,
    idlePing: '1h',
    handshakeTimeout: '1m',
  },
})
