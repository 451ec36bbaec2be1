/** Streams that pause, stall, split writes anywhere and vanish inside a frame, with every byte checked. */

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { rawUpgrade, upgradeLines } from './raw-upgrade.ts'

/** Both ends compute from its seed what the stream carries. */
export type Plan = {
  readonly seed: number
  /** Frames each way. */
  readonly frames: number
  /** `revoked`: neither end closes it, and the sidecar ends it before all frames are sent. */
  readonly ending: 'close' | 'worker vanishes' | 'gateway vanishes' | 'revoked'
}

export type Outcome = {
  readonly bytesUp: number
  readonly bytesDown: number
  /** Bytes that were lost, added or changed. */
  readonly problems: readonly string[]
}

/** What one end has got. */
export type Got = { readonly bytes: number; readonly problem: string | undefined }

/** A worker that was not let in. */
export type SoakRefusal = { readonly status: number; readonly body: string }

export type SoakWorker = {
  readonly port: number
  readonly localAddress: string
  readonly token: string
}

export type SoakOptions = {
  /** Waits for about this many milliseconds. */
  readonly pause: (ms: number) => Promise<void>
  readonly frameBytesMax: number
}

const NOISE_BYTES = 1024 * 1024
/** A busy machine may take its time to answer an upgrade: no byte is lost by that. */
const ANSWER_MS_MAX = 60_000
const PAUSE_MS_MAX = 400
const STALL_MS_MAX = 1500
const ACCEPT_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
const WORKER_CLOSE = Buffer.from('88820000000003e8', 'hex')
const GATEWAY_CLOSE = Buffer.from('880203e8', 'hex')
const USER_AGENT = /^user-agent: soak (\d+) (\d+) (.+)$/im
const KEY = /^sec-websocket-key: *(\S+)$/im

/** Numbers from 0 to 1 that a seed repeats (mulberry32). */
export class SeededRandom {
  #state: number

  constructor(seed: number) {
    this.#state = seed
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  below(end: number): number {
    return Math.floor(this.next() * end)
  }
}

const noise = (() => {
  const random = new SeededRandom(1)
  return Buffer.from(Uint8Array.from({ length: NOISE_BYTES }, () => random.below(256)))
})()

/** The frames of one direction: of all sizes, in fragments, with pings in between. */
class FrameSource {
  readonly #random: SeededRandom
  readonly #masked: boolean
  readonly #bytesMax: number
  #left: number
  #isInMessage = false

  constructor(plan: Plan, masked: boolean, bytesMax: number) {
    this.#random = new SeededRandom(plan.seed * 2 + (masked ? 1 : 0))
    this.#masked = masked
    this.#bytesMax = bytesMax
    this.#left = plan.frames
  }

  next(): Buffer | undefined {
    if (this.#left === 0) return undefined
    this.#left -= 1
    const random = this.#random
    if (random.next() < 0.1)
      return this.#frame(random.next() < 0.5 ? 0x89 : 0x8a, random.below(126))
    const isFinal = this.#left === 0 || random.next() < 0.7
    const first = (isFinal ? 0x80 : 0) | (this.#isInMessage ? 0 : 2)
    this.#isInMessage = !isFinal
    const bytes = random.next() < 0.05 ? 0 : Math.floor(this.#bytesMax ** random.next())
    return this.#frame(first, bytes)
  }

  #frame(first: number, bytes: number): Buffer {
    const lengthBytes = bytes < 126 ? 0 : bytes < 65_536 ? 2 : 8
    const head = Buffer.alloc(2 + lengthBytes)
    head[0] = first
    head[1] =
      (this.#masked ? 0x80 : 0) | (lengthBytes === 0 ? bytes : lengthBytes === 2 ? 126 : 127)
    if (lengthBytes === 2) head.writeUInt16BE(bytes, 2)
    if (lengthBytes === 8) head.writeBigUInt64BE(BigInt(bytes), 2)
    const size = bytes + (this.#masked ? 4 : 0)
    const at = this.#random.below(NOISE_BYTES - size)
    return Buffer.concat([head, noise.subarray(at, at + size)])
  }
}

/** Compares what arrives with what should arrive. */
class Check {
  bytes = 0
  problem: string | undefined
  /** What came after the last frame, or after a frame when the other end had vanished. */
  tail = Buffer.alloc(0)
  readonly #source: FrameSource
  readonly #mayEndEarly: boolean
  #frame: Buffer | undefined
  #at = 0

  constructor(source: FrameSource, mayEndEarly: boolean) {
    this.#source = source
    this.#mayEndEarly = mayEndEarly
    this.#frame = source.next()
  }

  /** Whether every frame has arrived. */
  get isComplete(): boolean {
    return this.#frame === undefined
  }

  take(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length && this.problem === undefined) {
      if (this.#frame === undefined || this.tail.length > 0) {
        this.tail = Buffer.concat([this.tail, chunk.subarray(at)])
        return
      }
      const size = Math.min(chunk.length - at, this.#frame.length - this.#at)
      const isSame = this.#frame.compare(chunk, at, at + size, this.#at, this.#at + size) === 0
      if (!isSame) return this.#onDifference(chunk.subarray(at))
      at += size
      this.bytes += size
      this.#at += size
      if (this.#at < this.#frame.length) continue
      this.#frame = this.#source.next()
      this.#at = 0
    }
  }

  #onDifference(rest: Buffer): void {
    // The sidecar tells that the other end vanished, between two frames.
    if (this.#mayEndEarly && this.#at === 0 && rest[0] === 0x88) this.tail = Buffer.from(rest)
    else this.problem = `differs after ${this.bytes} bytes`
  }
}

type End = {
  readonly socket: Socket
  readonly check: Check
  readonly source: FrameSource
  readonly random: SeededRandom
  /** It is this end that vanishes. */
  readonly vanishes: boolean
  readonly options: SoakOptions
}

/** Sends in pieces, with pauses; resolves when all is sent, or the socket is gone. */
async function send({ socket, source, random, vanishes, options }: End): Promise<void> {
  let frame = source.next()
  while (frame !== undefined && !socket.destroyed && socket.writable) {
    const following = source.next()
    const isLast = following === undefined
    const size = isLast && vanishes ? random.below(frame.length) : frame.length
    for (let at = 0; at < size;) {
      const end = random.next() < 0.5 ? size : Math.min(size, at + 1 + random.below(size - at))
      if (!socket.write(frame.subarray(at, end))) await drainOrClose(socket)
      at = end
      if (random.next() < 0.5) await options.pause(random.below(PAUSE_MS_MAX))
    }
    frame = following
  }
  if (vanishes) socket.resetAndDestroy()
}

async function drainOrClose(socket: Socket): Promise<void> {
  if (socket.destroyed || !socket.writableNeedDrain) return
  await new Promise<void>((resolve) => {
    const settle = (): void => {
      socket.off('drain', settle).off('close', settle)
      resolve()
    }
    socket.on('drain', settle).on('close', settle)
  })
}

/** Reads with stalls; `onProgress` runs after every chunk. */
function receive({ socket, check, random, options }: End, onProgress: () => void): void {
  socket.on('data', (chunk: Buffer) => {
    check.take(chunk)
    onProgress()
    if (random.next() >= 0.02) return
    socket.pause()
    void options.pause(random.below(STALL_MS_MAX)).then(() => socket.resume())
  })
  socket.on('end', () => socket.end())
  socket.resume()
}

/** Runs one end to the close of its socket and says what was wrong with what it got. */
async function runEnd(end: End, isWorker: boolean, plan: Plan): Promise<string | undefined> {
  const { socket, check } = end
  const closed = once(socket, 'close').catch(() => undefined)
  socket.on('error', () => undefined)
  const [own, other] = isWorker ? [WORKER_CLOSE, GATEWAY_CLOSE] : [GATEWAY_CLOSE, WORKER_CLOSE]
  let isSent = false
  let isClosing = false
  const closeInTurn = (): void => {
    const isAnswered = isWorker ? check.isComplete : check.tail.length >= other.length
    if (plan.ending !== 'close' || isClosing || !isSent || !isAnswered) return
    isClosing = true
    socket.write(own)
  }
  receive(end, closeInTurn)
  await send(end)
  isSent = true
  closeInTurn()
  await closed
  if (check.problem !== undefined) return check.problem
  if (plan.ending !== 'close') return undefined
  if (!check.isComplete) return `ends after ${check.bytes} bytes`
  return check.tail.equals(other) ? undefined : `its close was ${check.tail.toString('hex')}`
}

const endOf = (socket: Socket, plan: Plan, isWorker: boolean, options: SoakOptions): End => ({
  socket,
  source: new FrameSource(plan, isWorker, options.frameBytesMax),
  check: new Check(
    new FrameSource(plan, !isWorker, options.frameBytesMax),
    plan.ending === 'revoked' ||
      plan.ending === (isWorker ? 'gateway vanishes' : 'worker vanishes'),
  ),
  random: new SeededRandom(plan.seed * 7 + (isWorker ? 3 : 5)),
  vanishes: plan.ending === (isWorker ? 'worker vanishes' : 'gateway vanishes'),
  options,
})

/** A gateway that takes the plan of each stream from its `User-Agent`, and tells what it got. */
export async function startSoakServer(
  options: SoakOptions,
  onGot: (seed: number, got: Got) => void,
) {
  const serve = async (socket: Socket): Promise<void> => {
    const plan = await acceptUpgrade(socket)
    if (plan === undefined) return
    const end = endOf(socket, plan, false, options)
    const problem = await runEnd(end, false, plan)
    onGot(plan.seed, { bytes: end.check.bytes, problem })
  }
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined)
    void serve(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => void server.close(),
  }
}

/** The worker's end of one stream, from its upgrade on. It rejects where the answer is not one. */
export async function runSoakWorker(
  { port, localAddress, token }: SoakWorker,
  plan: Plan,
  options: SoakOptions,
): Promise<{ readonly got: Promise<Got> } | SoakRefusal> {
  const agent = `soak ${plan.seed} ${plan.frames} ${plan.ending}`
  const { status, body, socket } = await rawUpgrade({
    port,
    localAddress,
    timeoutMs: ANSWER_MS_MAX,
    lines: upgradeLines('/', [`User-Agent: ${agent}`, `Authorization: Bearer ${token}`]),
  })
  if (status !== 101) {
    socket.destroy()
    return { status, body }
  }
  const end = endOf(socket, plan, true, options)
  const got = runEnd(end, true, plan).then((problem) => ({ bytes: end.check.bytes, problem }))
  return { got }
}

export const outcomeOf = ({ seed }: Plan, up: Got, down: Got): Outcome => ({
  bytesUp: up.bytes,
  bytesDown: down.bytes,
  problems: [
    ...(down.problem === undefined ? [] : [`stream ${seed}, to the worker: ${down.problem}`]),
    ...(up.problem === undefined ? [] : [`stream ${seed}, to the gateway: ${up.problem}`]),
  ],
})

/** Both ends in one process. */
export async function startSoakGateway(options: SoakOptions) {
  const results = new Map<number, PromiseWithResolvers<Got>>()
  const server = await startSoakServer(options, (seed, got) => results.get(seed)?.resolve(got))
  /** One stream from its upgrade to its end at both ends. */
  const run = async (worker: SoakWorker, plan: Plan): Promise<Outcome> => {
    const result = Promise.withResolvers<Got>()
    results.set(plan.seed, result)
    const started = await runSoakWorker(worker, plan, options)
    if ('status' in started) throw new Error(`a worker was answered ${started.status}`)
    const [down, up] = await Promise.all([started.got, result.promise])
    results.delete(plan.seed)
    return outcomeOf(plan, up, down)
  }
  return { ...server, run }
}

/** Answers the upgrade; what came behind it is put back. */
async function acceptUpgrade(socket: Socket): Promise<Plan | undefined> {
  let head = Buffer.alloc(0)
  while (!head.includes('\r\n\r\n')) {
    const [chunk] = (await once(socket, 'data').catch(() => [undefined])) as [Buffer | undefined]
    if (chunk === undefined) return undefined
    head = Buffer.concat([head, chunk])
  }
  socket.pause()
  const size = head.indexOf('\r\n\r\n') + 4
  const text = head.toString('latin1', 0, size)
  const [, seed, frames, ending] = USER_AGENT.exec(text.replaceAll('\r', '')) ?? []
  const key = KEY.exec(text.replaceAll('\r', ''))?.[1] ?? ''
  const accept = createHash('sha1').update(`${key}${ACCEPT_GUID}`).digest('base64')
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      `Sec-WebSocket-Accept: ${accept}\r\n\r\n`,
  )
  if (size < head.length) socket.unshift(head.subarray(size))
  return { seed: Number(seed), frames: Number(frames), ending: ending as Plan['ending'] }
}
