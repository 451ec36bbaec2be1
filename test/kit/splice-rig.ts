/** Spliced streams between real sockets: two raw peers, or two of `ws`, and what they are sent. */

import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer as createHttpServer, type IncomingMessage } from 'node:http'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import type { Test } from 'tap'
import { WebSocket, WebSocketServer } from 'ws'
import { dialGateway } from '@openclaw-k8s/auth-sidecar/tunnel/dial.ts'
import { buildUpstreamRequest } from '@openclaw-k8s/auth-sidecar/tunnel/headers.ts'
import {
  splice,
  type SpliceOptions,
  type Stream,
  type Summary,
} from '@openclaw-k8s/auth-sidecar/tunnel/splice.ts'
import { textFrame } from '@openclaw-k8s/auth-sidecar/websocket/frames.ts'
import { FakeClock } from './fake-clock.ts'

export const MESSAGE_MAX = 26_214_400
export const EMPTY = Buffer.alloc(0)

export async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

/** Two ends of one TCP connection: the peer's and ours. */
export async function socketPair(t: Test): Promise<{ peer: Socket; ours: Socket }> {
  const server = createServer({ allowHalfOpen: true, noDelay: true })
  const port = await listen(server)
  const accepted = once(server, 'connection')
  const peer = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
  const [ours] = (await accepted) as [Socket]
  server.close()
  peer.on('error', () => undefined)
  t.teardown(() => {
    peer.destroy()
    ours.destroy()
  })
  return { peer, ours }
}

const sizeOf = (chunks: readonly Buffer[]): number =>
  chunks.reduce((size, chunk) => size + chunk.length, 0)

/** Keeps what a peer is sent. */
export function collect(peer: Socket) {
  const chunks: Buffer[] = []
  let waiting: (() => void) | undefined
  peer.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    waiting?.()
  })
  return {
    bytes: () => Buffer.concat(chunks),
    async has(size: number): Promise<Buffer> {
      while (sizeOf(chunks) < size) {
        await new Promise<void>((resolve) => (waiting = resolve))
      }
      return Buffer.concat(chunks)
    },
    /** Everything up to the end of the connection's half. */
    async all(): Promise<Buffer> {
      if (!peer.readableEnded) await once(peer, 'end')
      return Buffer.concat(chunks)
    },
  }
}

/** What the close frame at the end of `bytes` says; ours towards a gateway are masked. */
export function closeAtEnd(bytes: Buffer, before: Buffer, masked: boolean) {
  if (!bytes.subarray(0, before.length).equals(before)) return 'other bytes came before'
  const frame = bytes.subarray(before.length)
  if (frame.length === 0) return 'no close frame'
  const isWhole = frame[0] === 0x88 && frame.length === ((frame[1] ?? 0) & 0x7f) + (masked ? 6 : 2)
  if (!isWhole || (frame[1] ?? 0) >= 0x80 !== masked) return 'something else than a close frame'
  const mask = masked ? frame.subarray(2, 6) : Buffer.alloc(4)
  const body = frame.subarray(masked ? 6 : 2).map((byte, at) => byte ^ (mask[at & 3] ?? 0))
  const payload = Buffer.from(body)
  return `${payload.readUInt16BE(0)} ${payload.toString('utf8', 2)}`
}

/** A stream between two raw peers. */
export async function rawStream(t: Test, changes: Partial<SpliceOptions> = {}) {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const clock = new FakeClock()
  const ended = Promise.withResolvers<Summary>()
  const summaries: Summary[] = []
  const sockets = [worker.ours, gateway.ours]
  const events = ['data', 'drain', 'end', 'close', 'error']
  const countListeners = (): number[] =>
    sockets.flatMap((socket) => events.map((event) => socket.listenerCount(event)))
  const listenersBefore = countListeners()
  const stream = splice({
    worker: worker.ours,
    workerHead: EMPTY,
    gateway: gateway.ours,
    gatewayHead: EMPTY,
    messageBytesMax: MESSAGE_MAX,
    emptyFragmentsMax: 1000,
    clock,
    onClose(summary) {
      summaries.push(summary)
      ended.resolve(summary)
    },
    ...changes,
  })
  return {
    stream,
    clock,
    worker: worker.peer,
    gateway: gateway.peer,
    workerSide: worker.ours,
    gatewaySide: gateway.ours,
    atWorker: collect(worker.peer),
    atGateway: collect(gateway.peer),
    /** The summary, once nothing of the stream is left. */
    async summary(): Promise<Summary> {
      const summary = await ended.promise
      await turn()
      t.equal(summaries.length, 1, 'closed once')
      t.equal(clock.pending, 0, 'no timer is left')
      // The sockets drop their own listeners when they are destroyed, and never gain any.
      countListeners().forEach((count, at) => {
        if (count > (listenersBefore[at] ?? 0)) t.fail(`listener ${at} is left`)
      })
      return summary
    },
  }
}

/** A real worker and a real gateway of `ws`, with the tunnel in between. */
export async function realStream(t: Test, changes: Partial<SpliceOptions> = {}) {
  const gateways = new WebSocketServer({ port: 0, host: '127.0.0.1', maxPayload: 2 * MESSAGE_MAX })
  await once(gateways, 'listening')
  const gatewayUrl = new URL(`ws://127.0.0.1:${(gateways.address() as AddressInfo).port}/`)
  const summary = Promise.withResolvers<Summary>()
  const opened = Promise.withResolvers<Stream>()
  const edge = createHttpServer()
  const open = async (request: IncomingMessage, worker: Duplex, workerHead: Buffer) => {
    const key = String(request.headers['sec-websocket-key'])
    const clock = new FakeClock()
    const { socket, head } = await dialGateway({
      url: gatewayUrl,
      request: buildUpstreamRequest({
        gatewayUrl,
        workerAddress: '10.0.0.5',
        workerProto: 'http',
        forwardedHost: '10.0.0.1:18443',
        identity: {
          namespace: 'openclaw',
          serviceAccount: 'openclaw-worker',
          podName: 'pod',
          podUid: 'uid',
          nodeName: undefined,
          credentialId: undefined,
          expiresAt: 0,
        },
        role: 'node',
        assertion: 'a.b.c',
        key: randomBytes(16).toString('base64'),
      }),
      subprotocols: [],
      timeoutMs: 5000,
      clock,
    })
    const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
    worker.write(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        `Sec-WebSocket-Accept: ${accept.digest('base64')}\r\n\r\n`,
    )
    const stream = splice({
      worker,
      workerHead,
      gateway: socket,
      gatewayHead: head,
      messageBytesMax: MESSAGE_MAX,
      emptyFragmentsMax: 1000,
      clock,
      onClose: summary.resolve,
      ...changes,
    })
    opened.resolve(stream)
  }
  edge.on('upgrade', (request, worker, head) => void open(request, worker, head))
  const connected = once(gateways, 'connection')
  const worker = new WebSocket(`ws://127.0.0.1:${await listen(edge)}/`, {
    maxPayload: 2 * MESSAGE_MAX,
  })
  t.teardown(() => {
    edge.close()
    gateways.close()
  })
  const [[gateway]] = (await Promise.all([connected, once(worker, 'open')])) as [[WebSocket], []]
  for (const end of [worker, gateway]) end.on('error', () => undefined)
  const stream = await opened.promise
  return { worker, gateway, stream, summary: summary.promise }
}

export async function closeOf(end: WebSocket): Promise<string> {
  const [code, reason] = (await once(end, 'close')) as [number, Buffer]
  return `${code} ${reason.toString()}`
}

export function rawSocketOf(end: WebSocket): Socket {
  const { _socket: socket } = end as unknown as { _socket: Socket }
  return socket
}

export const up = (text: string): Buffer => textFrame(text, { masked: true })
export const down = (text: string): Buffer => textFrame(text, { masked: false })

/** Frames of many sizes, so that chunks of the kernel end anywhere in them. */
export function manyFrames(bytes: number, masked: boolean): Buffer {
  const frames: Buffer[] = []
  for (let total = 0, at = 0; total < bytes; at += 1) {
    const size = (at * 7919) % 5 === 0 ? at % 3 : 1 + ((at * 104_729) % 90_000)
    const frame = textFrame(String.fromCharCode(97 + (at % 26)).repeat(size), { masked })
    frames.push(frame)
    total += frame.length
  }
  return Buffer.concat(frames)
}
