/** One hostile connection: bytes in chunks, then an end that no protocol foresees. */

import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import * as fc from 'fast-check'

/**
 * `fin` says goodbye and waits for the other side's; `reset` cuts the connection; `answered reset`
 * does so at the first answer; `silence` stays until the round is over.
 */
type Ending = 'fin' | 'reset' | 'answered reset' | 'silence'

export type Course = {
  readonly ending: Ending
  /** Sizes of the chunks. */
  readonly sizes: readonly number[]
  /** Turns of the loop between two chunks, and before the end. */
  readonly turns: number
  /** How much of the bytes is sent: the rest never comes. */
  readonly sentShare: number
}

/** Few are silent: each takes up a place until the round is over. */
export const course: fc.Arbitrary<Course> = fc.record({
  ending: fc.oneof(
    { weight: 4, arbitrary: fc.constant('fin' as const) },
    { weight: 4, arbitrary: fc.constant('reset' as const) },
    { weight: 4, arbitrary: fc.constant('answered reset' as const) },
    { weight: 1, arbitrary: fc.constant('silence' as const) },
  ),
  sizes: fc.array(fc.integer({ min: 1, max: 2000 }), { minLength: 1, maxLength: 3 }),
  turns: fc.nat(3),
  sentShare: fc.oneof(
    { weight: 3, arbitrary: fc.constant(1) },
    { weight: 2, arbitrary: fc.double({ min: 0, max: 1, noNaN: true }) },
  ),
})

export type Peer = {
  readonly port: number
  readonly ca?: string | undefined
  readonly localAddress: string
}

/** Connections that stay silent until the round is over. */
export class Silent {
  readonly #sockets: Socket[] = []
  readonly #max: number

  constructor(max: number) {
    this.#max = max
  }

  /** The oldest has to go when there are too many. */
  add(socket: Socket): void {
    this.#sockets.push(socket)
    if (this.#sockets.length > this.#max) this.#sockets.shift()?.destroy()
  }

  end(): void {
    for (const socket of this.#sockets.splice(0)) socket.destroy()
  }
}

const RECEIVED_BYTES_MAX = 4 * 1024 * 1024
const CHUNKS_MAX = 200
/** How many turns an answer is waited for; there may be none. */
const ANSWER_TURNS_MAX = 50
/** How many turns what follows it is waited for, for each turn between two chunks. */
const FOLLOWING_TURNS = 10
/** A connection that was said goodbye to and is still open then is kept for ever. */
const GOODBYE_MS_MAX = 20_000

/** Resolves with what came back, once the connection is over or is one of the silent. */
export const playCourse = async (
  peer: Peer,
  bytes: Buffer,
  { ending, sizes, turns, sentShare }: Course,
  silent: Silent,
): Promise<Buffer> => {
  const { socket, tcp, closed } = open(peer)
  const received = collect(socket)
  const sent = bytes.subarray(0, Math.round(bytes.length * sentShare))
  const least = Math.ceil(sent.length / CHUNKS_MAX)
  for (let at = 0, nth = 0; at < sent.length && !tcp.destroyed; nth += 1) {
    const size = Math.max(sizes[nth % sizes.length] ?? 1, least)
    socket.write(sent.subarray(at, at + size))
    at += size
    for (let n = 0; n < turns; n += 1) await turn()
  }
  switch (ending) {
    case 'silence':
      silent.add(tcp)
      return received()
    case 'fin':
      socket.end()
      await within(closed, tcp)
      return received()
    case 'answered reset':
      for (let n = 0; n < ANSWER_TURNS_MAX && received().length === 0; n += 1) await turn()
      // What follows the answer may be worth more than it.
      for (let n = 0; n < turns * FOLLOWING_TURNS; n += 1) await turn()
      break
    case 'reset':
      break
  }
  tcp.resetAndDestroy()
  await closed
  return received()
}

const open = ({ port, ca, localAddress }: Peer) => {
  const tcp = connectTcp({ host: '127.0.0.1', port, localAddress })
  tcp.on('error', () => {})
  const closed = once(tcp, 'close').catch(() => [])
  if (ca === undefined) return { socket: tcp, tcp, closed }
  const socket = connectTls({ socket: tcp, host: '127.0.0.1', ca, ALPNProtocols: ['http/1.1'] })
  socket.on('error', () => {})
  return { socket, tcp, closed }
}

const collect = (socket: Socket): (() => Buffer) => {
  const chunks: Buffer[] = []
  let size = 0
  socket.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size > RECEIVED_BYTES_MAX) socket.destroy()
    else chunks.push(chunk)
  })
  return () => Buffer.concat(chunks)
}

const within = async (closed: Promise<unknown>, tcp: Socket): Promise<void> => {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    tcp.destroy()
    reject(new Error('the connection is still open after both were done'))
  }, GOODBYE_MS_MAX)
  try {
    await Promise.race([closed, promise])
  } finally {
    clearTimeout(timer)
  }
}
