/** Opens a stream at the gateway: connects, sends the request, and checks the answer. */

import type { Socket } from 'node:net'

import type { Clock } from '../lib/clock.ts'
import { Fault } from '../fault.ts'
import { ignoreError } from '../lib/peer-errors.ts'
import { endpointOf } from '../lib/address.ts'
import { GatewayRefused } from '../gateway-refusal.ts'
import { isOutOfFiles, NO_FILES } from '../lib/open-files.ts'
import { systemNetwork, type Network } from '../lib/network.ts'
import { GatewayReader } from './gateway-reader.ts'
import type { UpstreamRequest } from './headers.ts'
import { RefusalReader } from './refusal-reader.ts'
import { judgeResponseHead } from '../websocket/response-head.ts'

export type DialOptions = {
  /** A `ws:` URL; the connection to the gateway does not use TLS. */
  readonly url: URL
  readonly request: UpstreamRequest
  /** The subprotocols that the request offers. */
  readonly subprotocols: readonly string[]
  /** For connecting and the answer together, in milliseconds. */
  readonly timeoutMs: number
  readonly clock: Clock
  readonly signal?: AbortSignal | undefined
  /** The machine's own network unless said otherwise. */
  readonly connect?: Network['connect'] | undefined
  /** Called with the socket before it connects. */
  readonly watchPeer?: ((socket: Socket) => void) | undefined
}

export type GatewayConnection = {
  /** Paused, half-open allowed, and with an error listener. */
  readonly socket: Socket
  /** Reads the socket for its current consumer. */
  readonly reader?: GatewayReader
  /** The gateway's first frames, if they came with its answer. */
  readonly head: Buffer
  readonly subprotocol: string | undefined
}

/** The longest answer of the gateway, in bytes, including its empty line. */
const HEAD_BYTES_MAX = 16_384
const HEAD_END = '\r\n\r\n'

/**
 * Rejects with a `Fault`: `gateway_unreachable` when nobody answered in time, `gateway_refused`
 * when the answer is not a perfect 101, as a `GatewayRefused` where the gateway says why. Rejects
 * with the signal's reason on abort. The socket is then destroyed, and nothing the gateway sent was
 * passed on.
 */
export async function dialGateway(options: DialOptions): Promise<GatewayConnection> {
  const { url, signal, timeoutMs, clock, connect = systemNetwork.connect } = options
  if (url.protocol !== 'ws:') throw new Error('the gateway URL must use ws:')
  signal?.throwIfAborted()
  // Half-open: the splice ends the other side itself, so nothing in flight is lost.
  const reader = new GatewayReader()
  const { onread } = reader
  const socket = connect({ ...endpointOf(url), noDelay: true, allowHalfOpen: true, onread })
  reader.attach(socket)
  options.watchPeer?.(socket)
  // Never removed: an error may come before the splice listens, and must not end the process.
  socket.on('error', ignoreError)
  const { promise, resolve, reject } = Promise.withResolvers<GatewayConnection>()
  const abort = (): void => reject(signal?.reason)
  const cancelDeadline = clock.after(timeoutMs, () => {
    reject(new Fault('gateway_unreachable', `the gateway did not answer within ${timeoutMs} ms`))
  })
  signal?.addEventListener('abort', abort, { once: true })
  const stopReading = readAnswer({ socket, reader }, { options, resolve, reject })
  try {
    socket.write(options.request.text, 'latin1')
    return await promise
  } catch (error) {
    socket.destroy()
    throw error
  } finally {
    cancelDeadline()
    signal?.removeEventListener('abort', abort)
    stopReading()
  }
}

type Outcome = {
  readonly options: DialOptions
  readonly resolve: (dialed: GatewayConnection) => void
  readonly reject: (reason: unknown) => void
}

/** Settles the outcome from what the socket sends. The returned function stops listening. */
function readAnswer(
  dialed: Pick<GatewayConnection, 'socket' | 'reader'>,
  outcome: Outcome,
): () => void {
  const { socket } = dialed
  let read = Buffer.alloc(0)
  let refusal: RefusalReader | undefined
  const onData = (chunk: Buffer): void => {
    if (refusal !== undefined) return refusal.read(chunk)
    read = Buffer.concat([read, chunk])
    const end = read.indexOf(HEAD_END)
    if (end === -1 && read.length <= HEAD_BYTES_MAX && !isTlsRecord(read)) return
    // Now, not after the promise settles: chunks in between would be lost.
    socket.pause()
    refusal = settle(dialed, { read, end, outcome })
    if (refusal !== undefined) socket.resume()
  }
  const onError = (cause: Error): void => {
    const fault = new Fault('gateway_unreachable', describeError(cause), { cause })
    outcome.reject(refusal?.end() ?? fault)
  }
  const onEnd = (): void => {
    outcome.reject(refusal?.end() ?? new NoAnswer())
  }
  socket.on('data', onData)
  socket.on('error', onError)
  socket.on('end', onEnd)
  socket.on('close', onEnd)
  return () => {
    refusal?.stop()
    socket.off('data', onData)
    socket.off('error', onError)
    socket.off('end', onEnd)
    socket.off('close', onEnd)
  }
}

/** A server that expects TLS does the same. */
export class NoAnswer extends Fault {
  constructor() {
    super(
      'gateway_unreachable',
      'the gateway disconnected before it answered: it is stopping, or it expects TLS',
    )
  }
}

type HeadEnd = { readonly read: Buffer; readonly end: number; readonly outcome: Outcome }

/** Returns what has to be read of a refusal before the outcome can be settled. */
function settle(
  dialed: Pick<GatewayConnection, 'socket' | 'reader'>,
  { read, end, outcome }: HeadEnd,
): RefusalReader | undefined {
  const { request, subprotocols, clock } = outcome.options
  const refuse = (reason: string) => {
    outcome.reject(new Fault('gateway_refused', reason))
    return undefined
  }
  if (isTlsRecord(read)) {
    outcome.reject(new GatewayRefused('tls', ''))
    return undefined
  }
  if (end === -1 || end + HEAD_END.length > HEAD_BYTES_MAX) {
    return refuse("the gateway's answer exceeds 16 KiB")
  }
  const text = read.toString('latin1', 0, end)
  const answer = judgeResponseHead(text, { key: request.key, subprotocols })
  const rest = Buffer.from(read.subarray(end + HEAD_END.length))
  if (answer.ok) {
    outcome.resolve({ ...dialed, head: rest, subprotocol: answer.subprotocol })
    return undefined
  }
  if (answer.refusal === undefined) return refuse(answer.reason)
  const reader = new RefusalReader({ ...answer.refusal, clock, onRead: outcome.reject })
  reader.read(rest)
  return reader
}

/** The first bytes of an alert or a handshake in TLS (RFC 8446 §5.1). */
const isTlsRecord = (read: Buffer): boolean =>
  (read[0] === 0x15 || read[0] === 0x16) && read[1] === 0x03

/** Without descriptors of our own the gateway is not to blame. */
const describeError = (cause: Error): string =>
  isOutOfFiles(cause) ? `${NO_FILES} to reach the gateway with` : 'the gateway cannot be reached'
