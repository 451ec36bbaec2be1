/** The garbage of a storm, in its own process: handshakes that must be refused, sent as fast as they are answered. */

import { connect } from 'node:net'
import { badToken, badTokenClasses } from '../../kit/bad-tokens.ts'
import type { WorkerTarget } from './worker.ts'

export type GarbageRequest = {
  readonly target: WorkerTarget
  /** A good token, from which the bad ones are made. */
  readonly token: string
  readonly handshakes: number
  readonly atOnce: number
  /** The addresses they come from, one after another. */
  readonly addresses: number
}

export type GarbageDone = {
  readonly tookMs: number
  readonly answers: Readonly<Record<string, number>>
}

/** Classes of garbage: bad tokens, unreadable upgrades, and bytes that are not HTTP. */
export const GARBAGE = [...badTokenClasses, 'malformed upgrade', 'no HTTP'] as const
const ANSWER_MS_MAX = 20_000
const UPGRADE =
  'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
  'Sec-WebSocket-Version: 13\r\n'
const KEY = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'

const bytesOf = (n: number, good: string): string => {
  const kind = GARBAGE[n % GARBAGE.length] ?? 'no HTTP'
  if (kind === 'no HTTP') return `${'\u0016\u0003\u0001'.repeat(40)}\r\n\r\n`
  if (kind === 'malformed upgrade') return `${UPGRADE}Sec-WebSocket-Key: short\r\n\r\n`
  return `${UPGRADE}${KEY}Authorization: Bearer ${badToken(kind, n, good)}\r\n\r\n`
}

/** Resolves with the status of the answer, or an error's code. */
const show = (target: WorkerTarget, localAddress: string, bytes: string): Promise<string> =>
  new Promise((resolve) => {
    const socket = connect({ ...target, localAddress })
    let answer = 'no answer'
    socket.setTimeout(ANSWER_MS_MAX, () => socket.destroy())
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (answer === 'no answer') answer = error.code ?? error.message
    })
    socket.on('close', () => resolve(answer))
    socket.on('data', (chunk) => {
      if (answer === 'no answer') answer = chunk.toString('latin1', 9, 12)
    })
    socket.write(bytes, 'latin1')
  })

const flood = async (request: GarbageRequest): Promise<GarbageDone> => {
  const { target, token, handshakes, atOnce, addresses } = request
  const answers: Record<string, number> = {}
  let next = 0
  const work = async (): Promise<void> => {
    for (let n = next++; n < handshakes; n = next++) {
      const from = n % addresses
      const address = `127.${200 + (from >> 14)}.${(from >> 7) & 127}.${1 + (from & 127)}`
      const answer = await show(target, address, bytesOf(n, token))
      answers[answer] = (answers[answer] ?? 0) + 1
    }
  }
  const startedAt = performance.now()
  await Promise.all(Array.from({ length: atOnce }, work))
  return { tookMs: performance.now() - startedAt, answers }
}

if (import.meta.main) {
  process.on('disconnect', () => process.exit())
  const done = await flood(JSON.parse(process.argv[2] ?? '') as GarbageRequest)
  process.send?.(done)
}
