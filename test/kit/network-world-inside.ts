/** Inside a network world: a sidecar that listens where it does by default, a kubelet's probes, and workers. */

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { request, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bracketed } from '@openclaw-k8s/auth-sidecar/lib/address.ts'
import { startGatewayStub, type GatewayStub } from '@openclaw-k8s/gateway-stub'
import { startKubeApi } from './kube-api.ts'
import type { World } from './network-world.ts'
import { startSidecarProcess, type SidecarProcess } from './sidecar-process.ts'
import { waitForProcess } from './wait.ts'
import { closed, connectWorker } from './worker-client.ts'

export type Observed = Awaited<ReturnType<typeof play>>

/** Of each machine: the gateway's pod, two workers' pods, and the node that the kubelet dials from. */
const ADDRESSES = {
  gateway: { ipv4: '10.244.1.1', ipv6: 'fd00:10::1' },
  worker: { ipv4: '10.244.1.2', ipv6: 'fd00:10::2' },
  other: { ipv4: '10.244.1.3', ipv6: 'fd00:10::3' },
  node: { ipv4: '10.244.1.254', ipv6: 'fd00:10::fe' },
} as const
type Machine = keyof typeof ADDRESSES
type Family = 'ipv4' | 'ipv6'

const IP = 'ip'
/** As `ip` is told of an address of the family. */
const IP_OF = {
  ipv4: { option: '-4', bits: 32, flags: [] },
  ipv6: { option: '-6', bits: 128, flags: ['nodad'] },
} as const

type Ran = { readonly code: number | null; readonly stdout: string; readonly stderr: string }
type Cast = {
  readonly gateway: GatewayStub
  readonly directory: string
  readonly sidecar: SidecarProcess
  readonly listening: { readonly workers: string; readonly admin: string }
  readonly start: (command: string, ...args: readonly string[]) => SidecarProcess
  /** A short command, with the sidecar's own configuration. */
  readonly run: (command: string, ...args: readonly string[]) => Promise<Ran>
  /** A token of a new pod, which has the machine's addresses. */
  readonly token: (machine: Machine) => string
}

const WORKERS_PORT = 18_443
const ADMIN_PORT = 9464
const READY_MS_MAX = 15_000
const NAMESPACE = 'openclaw'

const world = JSON.parse(process.argv[2] ?? '') as World
const families: readonly Family[] = [
  ...(world.hasIpv4 ? (['ipv4'] as const) : []),
  ...(world.hasIpv6 ? (['ipv6'] as const) : []),
]
const loopback = world.hasIpv4 ? '127.0.0.1' : '::1'
/** Only the sidecar's own processes lose the family; what tests it here needs none of it. */
const runner = world.hasIpv6
  ? []
  : ['python3', fileURLToPath(new URL('without-ipv6.py', import.meta.url))]

/** The gateway's pod has an interface; the others' addresses are known to the kernel alone. */
const raiseNetwork = (): void => {
  const ip = (...args: readonly string[]) => execFileSync(IP, args)
  ip('link', 'set', 'lo', 'up')
  ip('link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'node0')
  for (const name of ['eth0', 'node0']) ip('link', 'set', name, 'up')
  for (const family of families) {
    const { option, bits, flags } = IP_OF[family]
    ip('addr', 'add', `${ADDRESSES.gateway[family]}/${bits}`, 'dev', 'eth0', ...flags)
    for (const machine of ['worker', 'other', 'node'] as const) {
      ip(option, 'route', 'add', 'local', `${ADDRESSES[machine][family]}/${bits}`, 'dev', 'lo')
    }
    writeFileSync(`/proc/sys/net/${family}/ip_nonlocal_bind`, '1')
  }
  if (!world.hasIpv4) ip('addr', 'del', '127.0.0.1/8', 'dev', 'lo')
}

/** A sidecar with its neighbors, on the ports it has by default. */
const startAll = async (): Promise<Cast> => {
  const api = await startKubeApi({ host: loopback })
  const gateway = await startGatewayStub({ host: loopback })
  const directory = mkdtempSync(join(tmpdir(), 'network-world-'))
  const { caFile, tokenFile } = await api.files(directory)
  const configFile = join(directory, 'config.json')
  const config = {
    gateway: { url: gateway.url, protocol: 'stream' },
    kubernetes: { caFile, tokenFile },
    k8sTrust: { allowedIdentities: [{ namespace: NAMESPACE, serviceAccount: 'openclaw-worker' }] },
    drain: { window: '1s' },
  }
  writeFileSync(configFile, JSON.stringify(config))
  // As in a pod of a cluster whose Service is of this family.
  const env = {
    KUBERNETES_SERVICE_HOST: loopback,
    KUBERNETES_SERVICE_PORT: String(api.port),
    HOST_IP: ADDRESSES.node[families[0] ?? 'ipv4'],
  }
  const set = (world.set ?? []).map((each) => `--set=${each}`)
  const start = (command: string, ...args: readonly string[]) =>
    startSidecarProcess([command, ...args], { env, runner })
  const run = async (command: string, ...args: readonly string[]): Promise<Ran> => {
    const { exited, stdout, stderr } = start(command, `--config=${configFile}`, ...set, ...args)
    const { code } = await exited
    return { code, stdout: stdout.text, stderr: stderr.text }
  }
  const sidecar = start('serve', `--config=${configFile}`, ...set)
  const listening = await sidecar.listening().catch((error: unknown) => {
    throw new Error(`${String(error)}\n${sidecar.stderr.text}`)
  })
  const token = (machine: Machine) => {
    const ips = families.map((family) => ADDRESSES[machine][family])
    const pod = { namespace: NAMESPACE, name: machine, serviceAccount: 'openclaw-worker', ips }
    return api.mintToken({ audiences: ['openclaw-gateway'], pod: api.createPod(pod) })
  }
  return { gateway, directory, sidecar, listening, start, run, token }
}

/** As the kubelet's probe: from the node, to an address of the pod. */
const probe = async (host: string, path: string, localAddress?: string): Promise<number> => {
  const sent = request(`http://${bracketed(host)}:${ADMIN_PORT}${path}`, {
    agent: false,
    ...(localAddress === undefined ? {} : { localAddress }),
  })
  const [response] = (await once(sent.end(), 'response')) as [IncomingMessage]
  response.resume()
  return response.statusCode ?? 0
}

/** A worker at an address, as it appears on both sides of the sidecar. */
const visit = async ({ gateway }: Cast, token: string, localAddress: string, host: string) => {
  const url = `ws://${bracketed(host)}:${WORKERS_PORT}`
  const seen = gateway.handshakes.length
  const outcome = await connectWorker({ url, token, localAddress })
  if (!outcome.ok) {
    const { error } = outcome.body as { readonly error: { readonly type: string } }
    return { from: localAddress, code: error.type }
  }
  outcome.socket.terminate()
  const headers = gateway.handshakes[seen]?.headers ?? {}
  return {
    from: localAddress,
    code: 'ok',
    forwardedFor: headers['x-forwarded-for'],
    forwardedHost: headers['x-forwarded-host'],
  }
}

/** A worker beside `connect`, in the gateway's own pod: its address is the one that dials. */
const visitThroughConnect = async (cast: Cast, token: string, family: Family) => {
  const tokenFile = join(cast.directory, 'worker-token')
  writeFileSync(tokenFile, token)
  const connect = cast.start(
    'connect',
    `--gateway=ws://${bracketed(ADDRESSES.gateway[family])}:${WORKERS_PORT}`,
    `--listen=${bracketed(loopback)}:0`,
    `--token-file=${tokenFile}`,
  )
  const { listen } = await connect.stderr.wait(({ msg }) => msg === 'listening')
  const outcome = await connectWorker({ url: `ws://${String(listen)}` })
  if (outcome.ok) outcome.socket.terminate()
  connect.signal('SIGTERM')
  await connect.exited
  return outcome.ok ? 'ok' : outcome.status
}

const eachFamily = async <T>(ask: (family: Family) => Promise<T>) => {
  const answers: Partial<Record<Family, T>> = {}
  for (const family of families) answers[family] = await ask(family)
  return answers
}

const play = async () => {
  raiseNetwork()
  const cast = await startAll()
  const { sidecar, listening, run, token } = cast
  const tokens = { gateway: token('gateway'), worker: token('worker') }
  const gatewayAt = (family: Family) => ADDRESSES.gateway[family]
  await waitForProcess(
    'readiness',
    READY_MS_MAX,
    async () => (await probe(loopback, '/readyz')) === 200,
  )
  const probes = await eachFamily((family) =>
    probe(gatewayAt(family), '/readyz', ADDRESSES.node[family]).catch(String),
  )
  const status = {
    loopback: await probe(loopback, '/status'),
    ...(await eachFamily((family) => probe(gatewayAt(family), '/status').catch(String))),
  }
  const own = await eachFamily((family) =>
    visit(cast, tokens.worker, ADDRESSES.worker[family], gatewayAt(family)),
  )
  const others = await eachFamily((family) =>
    visit(cast, tokens.worker, ADDRESSES.other[family], gatewayAt(family)),
  )
  const connect = await eachFamily((family) => visitThroughConnect(cast, tokens.gateway, family))
  const doctor = await run('doctor', ...(world.doctorSet ?? []).map((each) => `--set=${each}`))
  const host = gatewayAt(families[0] ?? 'ipv4')
  const lasting = await connectWorker({
    url: `ws://${bracketed(host)}:${WORKERS_PORT}`,
    token: tokens.worker,
    localAddress: ADDRESSES.worker[families[0] ?? 'ipv4'],
  })
  const drained = await run('drain')
  const ended = lasting.ok ? await closed(lasting.socket) : undefined
  sidecar.signal('SIGTERM')
  await sidecar.exited
  const audit = sidecar.stdout.records.map(
    ({ event, remoteIp }) => `${String(event)} ${String(remoteIp)}`,
  )
  const log = sidecar.stderr.records.map(({ msg }) => String(msg))
  return {
    listening,
    probes,
    status,
    own,
    others,
    connect,
    doctor,
    drained,
    ended,
    audit,
    log,
  }
}

process.once('disconnect', () => process.exit(1))
const observed = await play()
process.send?.(observed, () => process.exit(0))
