/** The attacks of `npm run bench:hostile`: without credentials, and each with bounded bytes and connections. */

import { once } from 'node:events'
import type { Socket } from 'node:net'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { upgradeLines } from '../../kit/raw-upgrade.ts'
import { rawFrame } from '../../kit/raw-frames.ts'
import { POD_ADDRESS, type HostileRig } from './rig.ts'

type Sent = {
  readonly bytes: number
  readonly connections: number
  /** Whether the attack's own observations were as expected. */
  readonly holds?: boolean
}

export type Attack = {
  readonly name: string
  /** `path=value`, over the rig's configuration. */
  readonly set?: readonly string[]
  readonly openFilesMax?: number
  /** Attacks, and resolves while its sockets are still open. */
  readonly run: (rig: HostileRig) => Promise<Sent>
}

/** `limits.pendingPerAddress` is 32: this many sockets are twenty pods' full share. */
const PENDING = 640
const PER_ADDRESS = 32
const SEGMENT_BYTES = 1400
const HEAD = `${upgradeLines().join('\r\n')}\r\n\r\n`

const addressOf = (n: number, perAddress = PER_ADDRESS): string =>
  `127.0.2.${1 + Math.floor(n / perAddress)}`

const range = (count: number): readonly number[] => Array.from({ length: count }, (_, n) => n)

/** Writes in small segments, each by itself, as far as the peer takes them. */
const trickle = async (socket: Socket, bytes: Buffer): Promise<number> => {
  let at = 0
  for (; at < bytes.length && socket.writable; at += SEGMENT_BYTES) {
    if (!socket.write(bytes.subarray(at, at + SEGMENT_BYTES))) await drained(socket)
  }
  return Math.min(at, bytes.length)
}

const drained = (socket: Socket): Promise<unknown> =>
  Promise.race([once(socket, 'drain'), once(socket, 'close')]).catch(() => {})

/** Opens WebSockets without a credential and sends `frames` on each. */
const beforeAuthentication =
  (frames: Buffer, { isRead = true, count = PENDING } = {}): Attack['run'] =>
  async (rig) => {
    let bytes = 0
    await Promise.all(
      range(count).map(async (n) => {
        const socket = await rig.dial(rig.workerPort, addressOf(n))
        socket.write(HEAD)
        if (isRead) socket.resume()
        else socket.pause()
        await sleep(100)
        bytes += HEAD.length + (await trickle(socket, frames))
      }),
    )
    await sleep(2000)
    return { bytes, connections: count }
  }

/** One pod's full share of handshakes, all with one good token. */
const REVIEWED = PER_ADDRESS
/** Long enough for all the bytes, and more streams than a pod has by default. */
const SLOW_REVIEWS = ['limits.handshakeTimeout=2m', 'limits.streamsPerPod=64', 'review.timeout=30s']
const SINGLE_BYTES = 30_000

/**
 * Introduces workers whose TokenReviews hang, and sends single bytes behind: one a turn, so that
 * most of them are a separate segment, and a separate chunk.
 */
const duringAdmission =
  (isInBand: boolean): Attack['run'] =>
  async (rig) => {
    rig.api.pauseReviews()
    let bytes = 0
    await Promise.all(
      range(REVIEWED).map(async () => {
        const token = rig.mint()
        const socket = await rig.dial(rig.workerPort, POD_ADDRESS)
        socket.setNoDelay(true).resume()
        const lines = upgradeLines('/', isInBand ? [] : [`Authorization: Bearer ${token}`])
        socket.write(`${lines.join('\r\n')}\r\n\r\n`)
        if (isInBand) {
          await once(socket, 'data')
          const request = {
            type: 'connect.request',
            authMode: 'k8s-sa',
            saToken: token,
            role: 'node',
          }
          socket.write(rawFrame({ payload: JSON.stringify(request) }))
        }
        await sleep(200)
        for (let at = 0; at < SINGLE_BYTES && socket.writable; at += 1) {
          if (!socket.write('x')) await drained(socket)
          await turn()
          bytes += 1
        }
      }),
    )
    await sleep(1000)
    return { bytes, connections: REVIEWED }
  }

const frames = (first: number, next: number, payload: string, bytesMax: number): Buffer => {
  const frame = (opcode: number) =>
    Buffer.concat([Buffer.from([opcode, 0x80 | payload.length, 0, 0, 0, 0]), Buffer.from(payload)])
  const count = Math.floor(bytesMax / (6 + payload.length)) - 1
  return Buffer.concat([frame(first), ...range(count).map(() => frame(next))])
}

/** Sends the same bytes on many connections of the admin port, none of which is read. */
const onAdminPort =
  (request: string, connections: number, perAddress: number): Attack['run'] =>
  async (rig) => {
    let bytes = 0
    for (const n of range(connections)) {
      if (rig.hasExited()) break
      const socket = await rig.dial(rig.adminPort, addressOf(n, perAddress))
      socket.pause()
      socket.write(request)
      bytes += request.length
      if (n % 16 === 0) await sleep(5)
    }
    await sleep(2000)
    return { bytes, connections }
  }

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`
const PIPELINED_BYTES = 65_000
const pipelined = (path: string): string =>
  get(path).repeat(Math.floor(PIPELINED_BYTES / get(path).length))

/** As many short headers as fit into a head. */
const MANY_HEADERS = `${upgradeLines().join('\r\n')}\r\n${'ab:c\r\n'.repeat(2600)}`

/** Connections that are opened, left with half a request, and only counted. */
const heads =
  (bytes: string, connections: number): Attack['run'] =>
  async (rig) => {
    await Promise.all(
      range(connections).map(async (n) => {
        const socket = await rig.dial(rig.workerPort, addressOf(n))
        socket.resume().write(bytes)
      }),
    )
    await sleep(2000)
    return { bytes: bytes.length * connections, connections }
  }

const UNFINISHED_BODIES = [
  `${upgradeLines('/', ['Content-Length: 10']).join('\r\n')}\r\n\r\nabc`,
  `${upgradeLines('/', ['Transfer-Encoding: chunked']).join('\r\n')}\r\n\r\n5\r\na`,
]
const AT_ONCE = 50

/** Upgrades that announce a body, send a part of it and reset: at once, or after the answer. */
const unfinishedBodies =
  (connections: number): Attack['run'] =>
  async (rig) => {
    let bytes = 0
    for (let from = 0; from < connections && !rig.hasExited(); from += AT_ONCE) {
      await Promise.all(
        range(AT_ONCE).map(async (n) => {
          const socket = await rig.dial(rig.workerPort, addressOf(from + n))
          const request = UNFINISHED_BODIES[n % 2] ?? ''
          bytes += request.length
          socket.write(request)
          if (n % 4 < 2) await Promise.race([once(socket, 'data'), once(socket, 'close')])
          socket.resetAndDestroy()
        }),
      )
    }
    return { bytes, connections }
  }

export const ATTACKS: readonly Attack[] = [
  {
    name: 'upgrades with unfinished bodies, reset',
    run: unfinishedBodies(4000),
    set: ['limits.failuresPerAddress=0'],
  },
  {
    name: 'first message in one-byte fragments',
    run: beforeAuthentication(frames(0x01, 0x00, 'x', 65_000)),
  },
  {
    name: 'first message in empty fragments',
    run: beforeAuthentication(frames(0x01, 0x00, '', 65_000)),
  },
  {
    name: 'pings before authentication, unread',
    run: beforeAuthentication(frames(0x89, 0x89, '', 65_000), { isRead: false }),
  },
  {
    name: 'single bytes behind an upgrade',
    run: duringAdmission(false),
    set: SLOW_REVIEWS,
  },
  {
    name: 'single bytes behind a first message',
    run: duringAdmission(true),
    set: SLOW_REVIEWS,
  },
  {
    name: 'heads of 2600 headers, whole',
    run: heads(`${MANY_HEADERS}\r\n`, 1920),
    set: ['limits.failuresPerAddress=0'],
  },
  { name: 'heads of 2600 headers, unfinished', run: heads(MANY_HEADERS, 1920) },
  { name: 'pipelined scrapes, unread', run: onAdminPort(pipelined('/metrics'), 256, 4) },
  { name: 'pipelined readiness, unread', run: onAdminPort(pipelined('/readyz'), 256, 4) },
  { name: 'one scrape each, unread', run: onAdminPort(get('/metrics'), 1000, 8) },
  {
    name: 'bodies that never come',
    run: onAdminPort('POST /drain HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{', 10_000, 80),
  },
  {
    name: 'idle admin connections, 128 descriptors',
    openFilesMax: 128,
    run: onAdminPort('', 200, 4),
  },
]
