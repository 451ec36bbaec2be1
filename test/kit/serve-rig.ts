/** A rig whose sidecar is a process that was started with `serve`, between an API server and a gateway. */

import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import { startKubeApi } from './kube-api.ts'
import type { TokenRequest } from './kube-tokens.ts'
import { waitForProcess } from './wait.ts'
import { connectInBand, connectWorker } from './worker-client.ts'
import {
  startSidecarProcess,
  type SidecarProcess,
  type SidecarProcessOptions,
} from './sidecar-process.ts'

export type ServeRig = Awaited<ReturnType<typeof startServeRig>>
type Ports = { readonly workers: number; readonly admin: number }
export type ServeRigOptions = Ports & {
  /** `path=value`, over the rig's own configuration. */
  readonly set?: readonly string[]
  /** Where the sidecar writes, and its environment; with a `stderr` the ports must not be 0. */
  readonly process?: Pick<SidecarProcessOptions, 'stdout' | 'stderr' | 'env' | 'main'>
}

export const AUDIENCE = 'openclaw-gateway'
export const POD_ADDRESSES = ['127.0.0.11', '127.0.0.12', '127.0.0.13'] as const

const API_CACHE_MS = 10_000
const READY_MS_MAX = 15_000
const STOP_MS_MAX = 8000

/** It cannot be set up here; the message says what to do about it. */
export class RigError extends Error {}

/** Everything that ends with the rig, the newest first. */
type Endings = (() => unknown)[]

export const startServeRig = async (options: ServeRigOptions) => {
  const endings: Endings = []
  try {
    return await build(options, endings)
  } catch (error) {
    await endAll(endings)
    throw error
  }
}

const build = async (options: ServeRigOptions, endings: Endings) => {
  for (const address of POD_ADDRESSES) await requireAddress(address)
  const directory = await mkdtemp(join(tmpdir(), 'auth-sidecar-demo-'))
  const removeDirectory = () => rmSync(directory, { recursive: true, force: true })
  process.once('exit', removeDirectory)
  endings.push(removeDirectory)
  // As a real API server does, which is why its word on a token is not enough.
  const api = await startKubeApi({ successCacheMs: API_CACHE_MS })
  endings.push(() => api.stop())
  const gateway = await startGatewayStub()
  endings.push(() => gateway.close())

  const configFile = join(directory, 'config.yaml')
  const files = await api.files(join(directory, 'serviceaccount'))
  const listen = {
    workers: await pickPort(options.workers),
    admin: await pickPort(options.admin),
  }
  await writeFile(
    configFile,
    configOf({ listen, gatewayUrl: gateway.url, apiUrl: api.url, ...files }),
  )
  const sidecar = startSidecarProcess(
    ['serve', '--config', configFile, ...(options.set ?? []).flatMap((each) => ['--set', each])],
    { isDetached: true, ...options.process },
  )
  endings.push(() => stopSidecar(sidecar))
  const addresses =
    options.process?.stderr === undefined
      ? await within(READY_MS_MAX, sidecar.listening()).catch((error: unknown) => {
          throw new RigError(`${String(error)}\n${sidecar.stderr.text}`)
        })
      : { workers: `127.0.0.1:${listen.workers}`, admin: `127.0.0.1:${listen.admin}` }
  const adminUrl = `http://${addresses.admin}`
  await waitUntilReady(adminUrl)

  const url = `ws://${addresses.workers}`
  return {
    api,
    gateway,
    sidecar,
    directory,
    configFile,
    url,
    adminUrl,
    createPod: (name: string, ip: string, serviceAccount = 'openclaw-worker') =>
      api.createPod({
        namespace: 'openclaw',
        name,
        serviceAccount,
        ips: [ip],
        nodeName: 'node-1',
        phase: 'Running',
      }),
    mint: (request: TokenRequest) => api.mintToken({ audiences: [AUDIENCE], ...request }),
    connect: (
      localAddress: string,
      token: string,
      headers: Readonly<Record<string, string>> = {},
    ) => connectWorker({ url, localAddress, token, headers }),
    connectInBand: (localAddress: string, frame: Readonly<Record<string, unknown>>) =>
      connectInBand({ url, localAddress, frame }),
    /** The series of a scrape that have a value. */
    scrape: async (): Promise<readonly string[]> =>
      (await (await fetch(`${adminUrl}/metrics`)).text())
        .split('\n')
        .filter((line) => /^openclaw_k8s_.* (?!0$|NaN$)/i.test(line)),
    close: () => endAll(endings),
  }
}

type ConfigParts = {
  readonly listen: Ports
  readonly gatewayUrl: string
  readonly apiUrl: string
  readonly caFile: string
  readonly tokenFile: string
}

const configOf = ({ listen, gatewayUrl, apiUrl, caFile, tokenFile }: ConfigParts): string => `\
listen:
  workers: 127.0.0.1:${listen.workers}
  admin: 127.0.0.1:${listen.admin}
gateway:
  url: ${gatewayUrl}
  protocol: stream
kubernetes:
  apiServer: ${apiUrl}
  caFile: ${JSON.stringify(caFile)}
  tokenFile: ${JSON.stringify(tokenFile)}
k8sTrust:
  audiences: [${AUDIENCE}]
  allowedIdentities:
    - { namespace: openclaw, serviceAccount: openclaw-worker }
drain:
  window: 1s
`

const requireAddress = async (address: string): Promise<void> => {
  if (await canListen(address, 0)) return
  throw new RigError(
    `Each pod of the demo needs its own address, and ${address} does not exist here.\n` +
      'On Linux all of 127.0.0.0/8 is loopback. On macOS add the aliases first:\n' +
      POD_ADDRESSES.map((each) => `  sudo ifconfig lo0 alias ${each} up\n`).join(''),
  )
}

/** The port itself where it is free, else 0: any. */
const pickPort = async (port: number): Promise<number> =>
  (await canListen('127.0.0.1', port)) ? port : 0

const canListen = async (host: string, port: number): Promise<boolean> => {
  const server = createServer()
  try {
    await once(server.listen({ host, port }), 'listening')
  } catch {
    return false
  }
  await new Promise((resolve) => server.close(resolve))
  return true
}

const within = async <T>(ms: number, promise: Promise<T>): Promise<T> => {
  const { promise: expired, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Error(`it took longer than ${ms} ms`)), ms)
  return Promise.race([promise, expired]).finally(() => clearTimeout(timer))
}

/** Asks as a kubelet's readiness probe would. */
const waitUntilReady = async (adminUrl: string): Promise<void> => {
  const ask = async (): Promise<boolean> => {
    const response = await fetch(`${adminUrl}/readyz`)
    if (!response.ok) throw new Error(await response.text())
    return true
  }
  await waitForProcess('the sidecar is ready', READY_MS_MAX, ask).catch((error: Error) => {
    const said = error.cause instanceof Error ? error.cause.message : String(error)
    throw new RigError(`The sidecar did not become ready:\n${said}`)
  })
}

const stopSidecar = async ({ signal, exited }: SidecarProcess): Promise<void> => {
  const timer = setTimeout(() => signal('SIGKILL'), STOP_MS_MAX)
  signal('SIGTERM')
  await exited
  clearTimeout(timer)
}

/** Each thing is ended once, however often this is called, and even if another would not end. */
const endAll = async (endings: Endings): Promise<void> => {
  for (let end = endings.pop(); end !== undefined; end = endings.pop()) {
    try {
      await end()
    } catch (error) {
      process.stderr.write(`${String(error)}\n`)
    }
  }
}
