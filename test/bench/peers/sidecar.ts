/** The sidecar as shipped, in its own process, from this checkout or from another one. */

import { basename, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startChild } from '../child.ts'
import { processTree } from '../processes.ts'
import type { Peer, RunningPeer, Runtime } from './peer.ts'
import { ship, type Shipped } from './shipped.ts'

const HERE = fileURLToPath(new URL('../../..', import.meta.url))

/** Raised so that a measurement meets no limit; no check is turned off. */
const LIMITS = [
  'limits.streams=100000',
  'limits.streamsPerPod=1024',
  'limits.pending=100000',
  'limits.pendingPerAddress=65536',
  'limits.failuresPerAddress=0',
  'limits.idlePing=1h',
]

export const sidecar = (): Peer => sidecarOf(HERE, [], 'sidecar')

/** `CHECKOUT [NODE-FLAG…]`: the sidecar of another checkout, or of this one with other flags. */
export const alsoSidecar = (given: string): Peer => {
  const [path = '.', ...flags] = given.split(' ').filter(Boolean)
  return sidecarOf(resolve(path), flags, `sidecar@${[basename(resolve(path)), ...flags].join(' ')}`)
}

const sidecarOf = (checkout: string, flags: readonly string[], name: string): Peer => {
  const shipped = ship(checkout)
  const node = `Node ${process.versions.node}`
  return {
    name,
    about: `${shipped.about}, ${[node, ...flags].join(' ')}, protocol stream, all checks on`,
    start: (runtime) => start(shipped, flags, runtime),
  }
}

const start = async (
  { main, env }: Shipped,
  flags: readonly string[],
  { cluster, upstream, directory, tls }: Runtime,
): Promise<RunningPeer> => {
  const settings = [
    'listen.workers=127.0.0.1:0',
    'listen.admin=127.0.0.1:0',
    ...(tls === undefined
      ? []
      : [`listen.tls.certFile=${tls.certFile}`, `listen.tls.keyFile=${tls.keyFile}`]),
    `gateway.url=ws://${upstream}`,
    'gateway.protocol=stream',
    `kubernetes.apiServer=${cluster.url}`,
    `kubernetes.caFile=${cluster.caFile}`,
    `kubernetes.tokenFile=${cluster.tokenFile}`,
    'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker}]',
    ...LIMITS,
  ]
  const child = startChild(
    [process.execPath, ...flags, main, 'serve', ...settings.flatMap((each) => ['--set', each])],
    // The audit is on, and goes to another process, as in a container.
    { env, lines: 'stderr', logFile: join(directory, 'audit.log'), stopSignal: 'SIGKILL' },
  )
  const workers = await listening(child.nextLine)
  return { address: workers, pids: () => processTree(child.pid), stop: child.stop }
}

const listening = async (nextLine: () => Promise<string>): Promise<string> => {
  const seen: string[] = []
  for (;;) {
    const line = await nextLine().catch((error: unknown) => {
      throw new Error(`the sidecar did not start:\n${seen.join('\n')}`, { cause: error })
    })
    seen.push(line)
    const { msg, workers } = parse(line)
    if (msg === 'listening') return String(workers)
  }
}

const parse = (line: string): { readonly msg?: unknown; readonly workers?: unknown } => {
  try {
    return JSON.parse(line) as { msg?: unknown }
  } catch {
    return {}
  }
}
