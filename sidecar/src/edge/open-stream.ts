/** Joins an admitted worker with the gateway, and records the stream from its start to its end. */

import type { Socket } from 'node:net'
import type { Admission } from '../admissions/admission.ts'
import type { Clock } from '../lib/clock.ts'
import type { Recorder } from '../observe/recorder.ts'
import type { Identity } from '../identity.ts'
import type { GatewayConnection } from '../tunnel/dial.ts'
import { splice } from '../tunnel/splice.ts'
import type { Attempts, Connection } from './attempts.ts'

export type StreamOptions = {
  readonly attempts: Pick<Attempts, 'ended'>
  readonly clock: Clock
  readonly random: () => number
  readonly recorder: Recorder
  /** Whether the worker port has TLS. */
  readonly isTls: boolean
  /** Prefix of every stream id, so that ids of two processes differ. */
  readonly streamIdPrefix: string
  readonly limits: { readonly messageBytes: number; readonly emptyFragments: number }
}

/** Who is admitted, and to what. */
export type Entry = {
  readonly admission: Admission
  readonly identity: Identity
  readonly role: string
  readonly connection: Connection
  /** The route of session hosting; `undefined` for a worker's own stream. */
  readonly route?: string | undefined
}

export type Joined = Entry & {
  readonly socket: Socket
  /** Bytes of the worker that precede what its socket still holds. */
  readonly workerHead: Buffer
  readonly gateway: GatewayConnection
}

/** The workers of a gateway that is gone are told within this time, in milliseconds. */
const GATEWAY_GONE_SPREAD_MS = 2000
const KEEP_ALIVE_MS = 30_000

/** What the recorder is told of a stream at its start and at its end. */
export const sessionOf = (
  { admission, identity, role, route, connection }: Entry,
  { clock, streamIdPrefix }: Pick<StreamOptions, 'clock' | 'streamIdPrefix'>,
) => ({
  streamId: `${streamIdPrefix}-${admission.number}`,
  address: connection.address,
  identity,
  role,
  route,
  durationMs: clock.monotonic() - connection.arrivedAt,
})

/** Ends an admission whose sockets are gone, and records how long a revocation took. */
export function finishAdmission(
  admission: Admission,
  { clock, recorder }: Pick<StreamOptions, 'clock' | 'recorder'>,
): void {
  admission.finish()
  const { revokedAt } = admission
  if (revokedAt !== undefined) recorder.revoked(clock.monotonic() - revokedAt)
}

/** Synchronous, so that nothing comes between the last check and the first relayed byte. */
export function openStream(joined: Joined, options: StreamOptions): void {
  const { admission, socket, workerHead, gateway } = joined
  const { attempts, clock, isTls, limits, random, recorder } = options
  const openedAt = clock.monotonic()
  const session = sessionOf(joined, options)
  socket.setNoDelay(true)
  socket.setKeepAlive(true, KEEP_ALIVE_MS)
  const stream = splice({
    worker: socket,
    workerHead,
    gateway: gateway.socket,
    // A TLS socket needs an event-loop turn for every write: it would hold the reader's memory.
    gatewayReader: isTls ? undefined : gateway.reader,
    gatewayHead: gateway.head,
    messageBytesMax: limits.messageBytes,
    emptyFragmentsMax: limits.emptyFragments,
    gatewayGoneDelayMs: () => random() * GATEWAY_GONE_SPREAD_MS,
    clock,
    onClose: ({ code, counts }) => {
      finishAdmission(admission, options)
      const durationMs = clock.monotonic() - openedAt
      attempts.ended(code, durationMs, admission.claims)
      recorder.closed({ ...session, code, counts, durationMs })
    },
  })
  admission.attach(stream)
  recorder.admitted(session)
}
