/** A recording relay between sidecar and gateway: bytes pass untouched, heads and first frames are kept. */

import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

export type RecordedFrame = {
  readonly from: 'sidecar' | 'gateway'
  readonly opcode: number
  readonly text: string
  /** When it passed, in milliseconds of this process's monotonic clock. */
  readonly atMs: number
}

export type RecordedConnection = {
  /** Request line and header lines, in order, as they came. */
  readonly head: readonly string[]
  /** The first frames of both directions, in the order they passed. */
  readonly frames: readonly RecordedFrame[]
  readonly headAtMs: number
}

const FRAMES_KEPT = 12
const HELLO = '"type":"hello-ok"'
const HEAD_END = '\r\n\r\n'

export const startRelay = async (port: number, gatewayPort: number) => {
  const connections: RecordedConnection[] = []
  const sockets = new Set<Socket>()
  const server = createServer((near) => {
    const far = connect(gatewayPort, '127.0.0.1')
    const record = createRecord((connection) => connections.push(connection))
    for (const [socket, peer] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket)
      socket.on('error', () => peer.destroy())
      socket.on('close', () => {
        sockets.delete(socket)
        peer.destroy()
      })
    }
    near.on('data', (chunk: Buffer) => record('sidecar', chunk))
    far.on('data', (chunk: Buffer) => record('gateway', chunk))
    near.pipe(far)
    far.pipe(near)
  })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    connections: connections as readonly RecordedConnection[],
    stop: async (): Promise<void> => {
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

/** The values of a header, one for each time it was sent. */
export const headerValues = (connection: RecordedConnection, name: string): readonly string[] =>
  connection.head
    .slice(1)
    .filter((line) => line.slice(0, line.indexOf(':')).toLowerCase() === name)
    .map((line) => line.slice(line.indexOf(':') + 1).trim())

/** The role of the `connect` on this connection. */
export const roleOf = ({ frames }: RecordedConnection): string | undefined => {
  const first = frames.find(({ from }) => from === 'sidecar')
  if (first === undefined) return undefined
  return (JSON.parse(first.text) as { params?: { role?: string } }).params?.role
}

export const isLetIn = ({ frames }: RecordedConnection): boolean =>
  frames.some(({ text }) => text.includes(HELLO))

/** Whether the gateway answered that the device has to be approved. */
export const isAskedToPair = ({ frames }: RecordedConnection): boolean =>
  frames.some(({ from, text }) => from === 'gateway' && text.includes('"PAIRING_REQUIRED"'))

/** Whether the `connect` on this connection showed a bootstrap token. */
export const hasBootstrapToken = (connection: RecordedConnection): boolean =>
  framesBeforeHello(connection).some(({ text }) => text.includes('"bootstrapToken"'))

/** The share of the gateway in a handshake: its challenge to the dial, its answer to the connect. */
export const gatewayShareMs = ({ headAtMs, frames }: RecordedConnection): number => {
  const [challenge, connected, hello] = frames
  if (challenge === undefined || connected === undefined || hello === undefined) return Number.NaN
  return challenge.atMs - headAtMs + (hello.atMs - connected.atMs)
}

/** What the sidecar sent before the gateway's `hello-ok`. */
export const framesBeforeHello = ({ frames }: RecordedConnection): readonly RecordedFrame[] => {
  const hello = frames.findIndex(({ text }) => text.includes(HELLO))
  return frames.slice(0, hello === -1 ? frames.length : hello).filter((f) => f.from === 'sidecar')
}

const createRecord = (onHead: (connection: RecordedConnection) => void) => {
  const frames: RecordedFrame[] = []
  const pending: Record<'sidecar' | 'gateway', Buffer> = {
    sidecar: Buffer.alloc(0),
    gateway: Buffer.alloc(0),
  }
  const hasHead = { sidecar: false, gateway: false }
  return (from: 'sidecar' | 'gateway', chunk: Buffer): void => {
    if (frames.length >= FRAMES_KEPT) return
    pending[from] = Buffer.concat([pending[from], chunk])
    if (!hasHead[from]) {
      const end = pending[from].indexOf(HEAD_END)
      if (end === -1) return
      const head = pending[from].toString('latin1', 0, end).split('\r\n')
      if (from === 'sidecar') onHead({ head, frames, headAtMs: performance.now() })
      hasHead[from] = true
      pending[from] = pending[from].subarray(end + HEAD_END.length)
    }
    let frame = takeFrame(pending[from])
    while (frame !== undefined) {
      pending[from] = frame.rest
      frames.push({ from, opcode: frame.opcode, text: frame.text, atMs: performance.now() })
      frame = takeFrame(pending[from])
    }
  }
}

/** One whole frame from the front (RFC 6455 §5.2), or nothing yet. */
const takeFrame = (bytes: Buffer) => {
  const [first, second] = bytes
  if (first === undefined || second === undefined) return undefined
  const isMasked = (second & 0x80) !== 0
  const short = second & 0x7f
  const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0
  const payloadAt = 2 + lengthBytes + (isMasked ? 4 : 0)
  if (bytes.length < payloadAt) return undefined
  const length = lengthOf(bytes, short)
  if (bytes.length < payloadAt + length) return undefined
  const payload = Buffer.from(bytes.subarray(payloadAt, payloadAt + length))
  if (isMasked) {
    const mask = bytes.subarray(payloadAt - 4, payloadAt)
    for (let i = 0; i < payload.length; i += 1) payload[i] = (payload[i] ?? 0) ^ (mask[i % 4] ?? 0)
  }
  return {
    opcode: first & 0x0f,
    text: payload.toString(),
    rest: bytes.subarray(payloadAt + length),
  }
}

const lengthOf = (bytes: Buffer, short: number): number => {
  if (short === 126) return bytes.readUInt16BE(2)
  return short === 127 ? Number(bytes.readBigUInt64BE(2)) : short
}
