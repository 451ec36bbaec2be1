/** Measures what peers that do not read cost: `node test/bench/slow-readers.ts [connections]`. */

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { report, startProcessRig, type Finding } from './process-rig.ts'

const CONNECTIONS = Number(process.argv[2] ?? 100)
const MESSAGE_BYTES = 65_536
/** What is sent to each connection: far more than anybody should hold. */
const MESSAGES = 1000
/** Between two mouthfuls of a slow reader, in milliseconds; each is at most one read. */
const SIP_MS = 100
const SETTLE_MS = 5000
/** Both sockets' kernel buffers are not ours; this is what the process itself may hold. */
const RSS_KIB_A_CONNECTION_MAX = 1024
const ECHO_MS_MAX = 1000
const MIB = 1024 * 1024

const rig = await startProcessRig({
  set: [
    'limits.streamsPerPod=1024',
    'limits.pendingPerAddress=2000',
    // A peer that does not read does not answer pings; here such peers have to stay.
    'limits.idlePing=1h',
  ],
})

type Behavior = Parameters<typeof rig.gateway.setBehavior>[0]

const open = async (behavior: Behavior): Promise<Socket> => {
  rig.gateway.setBehavior(behavior, { connections: 1 })
  const { host, port, podAddress: localAddress } = rig
  const socket = connect({ host, port, localAddress })
  socket.on('error', () => {})
  socket.write(
    'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
      `Authorization: Bearer ${rig.token}\r\n\r\n`,
  )
  const [first] = (await once(socket, 'data')) as [Buffer]
  if (!first.toString('latin1').startsWith('HTTP/1.1 101')) throw new Error('a refusal')
  socket.pause()
  return socket
}

/** A masked binary frame; with a mask of zeros the payload stays as it is. */
const frame = (payload: Buffer): Buffer => {
  const long = payload.length > 125
  const head = Buffer.alloc(long ? 14 : 6)
  head[0] = 0x82
  head[1] = 0x80 | (long ? 127 : payload.length)
  if (long) head.writeBigUInt64BE(BigInt(payload.length), 2)
  return Buffer.concat([head, payload])
}

const sip = (socket: Socket): NodeJS.Timeout =>
  setInterval(() => {
    socket.once('data', () => socket.pause())
    socket.resume()
  }, SIP_MS)

type Measured = { readonly before: number; readonly peak: number; readonly relayed: number }

/** Watches the sidecar until it has come to rest, or for `SETTLE_MS`. */
const measure = async (before: number, direction: 'up' | 'down'): Promise<Measured> => {
  let peak = before
  const until = performance.now() + SETTLE_MS
  while (performance.now() < until) {
    peak = Math.max(peak, await rig.rssMib())
    await sleep(200)
  }
  const relayed = (await rig.metrics()).get(`stream_bytes_total{direction="${direction}"}`) ?? 0
  return { before, peak, relayed }
}

/** How long a worker that behaves waits for its echo meanwhile. */
const echo = async (socket: Socket): Promise<number> => {
  const startedAt = performance.now()
  socket.resume()
  socket.write(frame(Buffer.from('hello')))
  await once(socket, 'data')
  socket.pause()
  return performance.now() - startedAt
}

const findings: Finding[] = []
const judge = (what: string, { before, peak, relayed }: Measured, echoMs: number): void => {
  const kib = ((peak - before) * 1024) / CONNECTIONS
  findings.push(
    [
      `${what}: memory of the sidecar`,
      `${before.toFixed(1)} before, ${peak.toFixed(1)} peak (MiB), ${kib.toFixed(0)} KiB a connection`,
      kib < RSS_KIB_A_CONNECTION_MAX,
    ],
    [
      `${what}: read from the fast side`,
      `${(relayed / CONNECTIONS / MIB).toFixed(2)} of ${((MESSAGES * MESSAGE_BYTES) / MIB).toFixed(1)} MiB a connection, kernel buffers included`,
      relayed < CONNECTIONS * MESSAGES * MESSAGE_BYTES,
    ],
    [`${what}: echo of a good worker`, `${echoMs.toFixed(1)} ms`, echoMs < ECHO_MS_MAX],
  )
}

const healthy = await open({ kind: 'accept' })
await echo(healthy)

const downBefore = await rig.rssMib()
const readers: Socket[] = []
for (let n = 0; n < CONNECTIONS; n += 1) {
  readers.push(await open({ kind: 'flood', messages: MESSAGES, messageBytes: MESSAGE_BYTES }))
}
const sips = readers.filter((_, n) => n % 2 === 0).map(sip)
judge(
  'workers that do not read (half slowly, half never)',
  await measure(downBefore, 'down'),
  await echo(healthy),
)
for (const timer of sips) clearInterval(timer)
for (const socket of readers) socket.destroy()
await sleep(1000)

const upBefore = await rig.rssMib()
const message = frame(Buffer.alloc(MESSAGE_BYTES))
const writers: Socket[] = []
for (let n = 0; n < CONNECTIONS; n += 1) writers.push(await open({ kind: 'silent' }))
const pump = (socket: Socket): void => {
  let sent = 0
  const send = (): void => {
    while (sent < MESSAGES) {
      sent += 1
      if (!socket.write(message)) return void socket.once('drain', send)
    }
  }
  send()
}
writers.forEach(pump)
judge('a gateway that does not read', await measure(upBefore, 'up'), await echo(healthy))
for (const socket of writers) socket.destroy()
healthy.destroy()

process.stdout.write(`        ${CONNECTIONS} connections a direction\n`)
process.exitCode = report(findings) ? 0 : 1
await rig.stop()
