/** Measures what the flood of one address costs the others: `node test/bench/flood/fairness.ts [attempts a second]`. */

import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { startChild } from '../child.ts'
import type { FloodOrder } from './generator.ts'
import { report, startProcessRig, type Finding } from '../process-rig.ts'

/** Bounded: generator, API server, gateway and sidecar share the machine's cores. */
const RATE_PER_SECOND = Number(process.argv[2] ?? 500)
/** Calm and flooded windows alternate, so that changes of the machine affect both alike. */
const ROUNDS = 20
const WINDOW_MS = 2000
const CALM_PODS = 32
/** Longer than a short stream, which a pod is charged for. */
const CALM_STREAM_MS = 1100
const CALM_INTERVAL_MS = 16
const P99_FACTOR_MAX = 2
const AUDIT_LINES_PER_SECOND_MAX = 10
const FLOOD_ADDRESS = '127.0.0.66'

const UPGRADE =
  'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
  'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
const withToken = (token: string): string => `${UPGRADE}Authorization: Bearer ${token}\r\n\r\n`

const STREAMS_PER_POD = 8

const rig = await startProcessRig({
  set: [`limits.streamsPerPod=${STREAMS_PER_POD}`, 'limits.idlePing=1h'],
})
const tokenOf = (name: string, ip: string): string => {
  const common = { namespace: 'openclaw', serviceAccount: 'openclaw-worker', nodeName: 'node-1' }
  const pod = rig.api.createPod({ ...common, name, ips: [ip] })
  return rig.api.mintToken({ pod, audiences: ['openclaw-gateway'] })
}

/** Milliseconds from the first SYN to the 101. */
const enter = async (token: string, localAddress: string): Promise<number> => {
  const startedAt = performance.now()
  const socket = connect({ host: rig.host, port: rig.port, localAddress })
  socket.on('error', () => {})
  socket.write(withToken(token))
  const [answer] = (await once(socket, 'data')) as [Buffer]
  const ms = performance.now() - startedAt
  setTimeout(() => socket.destroy(), CALM_STREAM_MS)
  if (!answer.toString('latin1').startsWith('HTTP/1.1 101')) throw new Error(answer.toString())
  return ms
}

const calmPods = Array.from({ length: CALM_PODS }, (_, n) => {
  const address = `127.0.2.${1 + n}`
  return { address, token: tokenOf(`calm-${n}`, address) }
})
const held = tokenOf('flooding', FLOOD_ADDRESS)
/** The streams of the flooding pod, as many as it may have. */
const holders = await Promise.all(
  Array.from({ length: STREAMS_PER_POD }, async () => {
    const socket = connect({ host: rig.host, port: rig.port, localAddress: FLOOD_ADDRESS })
    socket.on('error', () => {})
    socket.write(withToken(held))
    await once(socket, 'data')
    return socket
  }),
)

/** Admissions of the calm addresses, one every `CALM_INTERVAL_MS`, however long the last one took. */
const calmWindow = async (): Promise<number[]> => {
  const pending: Promise<number>[] = []
  const startedAt = performance.now()
  for (let n = 0; n * CALM_INTERVAL_MS < WINDOW_MS; n += 1) {
    await sleep(Math.max(0, startedAt + n * CALM_INTERVAL_MS - performance.now()))
    const pod = calmPods[n % CALM_PODS]
    if (pod !== undefined) pending.push(enter(pod.token, pod.address))
  }
  return Promise.all(pending)
}

/** What the audit has on the address that floods; the lines themselves are too many to keep. */
const audited = { lines: 0, bytes: 0 }
rig.sidecar.stdout
  .wait((record) => {
    if (record['remoteIp'] !== FLOOD_ADDRESS) return false
    audited.lines += 1
    audited.bytes += JSON.stringify(record).length + 1
    return false
  })
  .catch(() => {})

const quantile = (values: readonly number[], q: number): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN
}

type Medians = { readonly p50: number; readonly p99: number }

/** Over all windows: one window in which the machine was busy must not decide. */
const medians = (windows: readonly (readonly number[])[]): Medians => {
  const of = (q: number) =>
    quantile(
      windows.map((window) => quantile(window, q)),
      0.5,
    )
  return { p50: of(0.5), p99: of(0.99) }
}

/** A real attacker has its own machine. Here it yields the cores to the sidecar and its callers. */
const generator = startChild([
  '/usr/bin/nice',
  '-n',
  '19',
  process.execPath,
  fileURLToPath(new URL('generator.ts', import.meta.url)),
])

type Flood = { readonly name: string; readonly request: string; readonly isCapped: boolean }
const floods: readonly Flood[] = [
  { name: 'a pod over its streams', request: withToken(held), isCapped: true },
  { name: 'a pod that comes and goes', request: withToken(held), isCapped: false },
  { name: 'leaves in its handshake', request: `${UPGRADE}\r\n`, isCapped: false },
  { name: 'a bad token', request: withToken('garbage'), isCapped: false },
]

const cpuSeconds = async (): Promise<number> =>
  (await rig.metrics()).get('process_cpu_seconds_total') ?? Number.NaN

/** What an address may do before it has to wait is spent before anything is measured. */
const spend = async (order: FloodOrder): Promise<void> => {
  generator.writeLine(JSON.stringify(order))
  await sleep(WINDOW_MS)
  generator.writeLine('')
  await generator.nextLine()
}

const measure = async ({ name, request }: Flood): Promise<readonly Finding[]> => {
  const order: FloodOrder = {
    port: rig.port,
    localAddress: FLOOD_ADDRESS,
    ratePerSecond: RATE_PER_SECOND,
    request,
  }
  const calm: number[][] = []
  const flooded: number[][] = []
  let attempts = 0
  let cpuS = 0
  await spend(order)
  const before = { ...audited }
  for (let round = 0; round < ROUNDS; round += 1) {
    const cpuAtStart = await cpuSeconds()
    calm.push(await calmWindow())
    const cpuInBetween = await cpuSeconds()
    generator.writeLine(JSON.stringify(order))
    flooded.push(await calmWindow())
    generator.writeLine('')
    attempts += Number(await generator.nextLine())
    cpuS += (await cpuSeconds()) - cpuInBetween - (cpuInBetween - cpuAtStart)
  }
  // The last second of the flood is written at its end.
  await sleep(1100)
  const seconds = (ROUNDS * WINDOW_MS) / 1000
  const lines = (audited.lines - before.lines) / seconds
  const kib = (audited.bytes - before.bytes) / seconds / 1024
  const [calmMs, floodMs] = [medians(calm), medians(flooded)]
  const inMs = ({ p50, p99 }: Medians) => `p50 ${p50.toFixed(1)}, p99 ${p99.toFixed(1)} ms`
  return [
    [
      `${name}: admissions of others`,
      `calm ${inMs(calmMs)}; flooded ${inMs(floodMs)}; ${(attempts / seconds).toFixed(0)} attempts a second, ${((cpuS / attempts) * 1000).toFixed(2)} ms of CPU each`,
      floodMs.p99 <= P99_FACTOR_MAX * calmMs.p99,
    ],
    [
      `${name}: audit`,
      `${lines.toFixed(1)} lines a second, ${kib.toFixed(2)} KiB/s`,
      lines <= AUDIT_LINES_PER_SECOND_MAX,
    ],
  ]
}

await calmWindow()
const findings: Finding[] = []
for (const flood of floods) {
  if (!flood.isCapped) for (const socket of holders) socket.destroy()
  findings.push(...(await measure(flood)))
}
process.stdout.write(
  `        one address tries up to ${RATE_PER_SECOND} times a second; ${CALM_PODS} others are let in ${(1000 / CALM_INTERVAL_MS).toFixed(0)} times a second in all\n`,
)
process.exitCode = report(findings) ? 0 : 1
await generator.stop()
await rig.stop()
