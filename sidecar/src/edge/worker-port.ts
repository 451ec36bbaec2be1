/** The worker port: takes upgrades over from the HTTP server and leads each through the line. */

import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { SecureContextOptions, TlsOptions } from 'node:tls'
import { findCredential } from '../authn/credential.ts'
import type { Clock } from '../clock.ts'
import { isFault, type Code, type Verdict } from '../denial.ts'
import type { Dialect, Handshake } from '../dialect/dialect.ts'
import type { Recorder, Trail } from '../observe/recorder.ts'
import type { TokenBuckets } from '../token-buckets.ts'
import { normalizeAddress } from '../tunnel/address.ts'
import { splice } from '../tunnel/splice.ts'
import { admit, type Admission, type Line } from './admit.ts'
import { createHttpServer, type HttpServer } from './http-server.ts'
import { PendingSockets } from './pending-sockets.ts'
import { refusalResponse, refuseUpgrade } from './refuse.ts'
import { validateUpgrade, type UpgradeRequest } from './upgrade.ts'
import { Worker, type WorkerOptions } from './worker.ts'

export type WorkerPortOptions = {
  readonly line: Line
  readonly dialect: Dialect
  readonly recorder: Recorder
  readonly clock: Clock
  readonly random: () => number
  /** Denials a peer address may collect before it is asked to wait. */
  readonly failures: TokenBuckets
  readonly tls: TlsOptions | undefined
  /** Told of every socket at its accept. */
  readonly watchPeer: (stream: Duplex) => void
  readonly isTrustEnabled: () => boolean
  readonly credentialHeader: () => string
  /** Starts every stream id, so that ids of two processes are told apart. */
  readonly streamIdPrefix: string
  readonly limits: {
    readonly handshakeTimeoutMs: number
    readonly pendingPerAddress: number
    readonly pending: number
    readonly preAuthFrameBytes: number
    readonly messageBytes: number
    readonly emptyFragments: number
  }
}

/** A gateway that goes takes all its streams along: their workers are told within this time. */
const GATEWAY_GONE_SPREAD_MS = 2000
const KEEP_ALIVE_MS = 30_000

/** Codes before the line that mean a credential was shown. */
const CREDENTIAL_CODES: readonly Code[] = [
  'credential_in_query',
  'credential_repeated',
  'credential_malformed',
  'credential_too_large',
]

type Arrived = Pick<WorkerOptions, 'socket' | 'head' | 'address' | 'upgrade' | 'credential'>
type Visit = { readonly address: string; readonly trail: Trail; readonly arrivedAt: number }

export class WorkerPort {
  readonly #options: WorkerPortOptions
  readonly #http: HttpServer
  readonly #pending: PendingSockets
  #isDraining = false

  constructor(options: WorkerPortOptions) {
    const { clock, limits, random, tls, watchPeer } = options
    this.#options = options
    this.#pending = new PendingSockets({
      perAddressMax: limits.pendingPerAddress,
      inAllMax: limits.pending,
      handshakeTimeoutMs: limits.handshakeTimeoutMs,
      clock,
    })
    this.#http = createHttpServer({
      tls,
      clock,
      random,
      watchPeer,
      headTimeoutMs: limits.handshakeTimeoutMs,
      onRefused: (code, socket) => this.#record(code, visitOf(socket, clock)),
    })
    this.#http.server.prependListener('connection', (socket) => this.#onConnection(socket))
    this.#http.onUpgrade((request, head) => void this.#receive(request, request.socket, head))
  }

  get server(): Server {
    return this.#http.server
  }

  /** Sockets that have not been admitted yet. */
  get pendingCount(): number {
    return this.#pending.size
  }

  /** Resolves with the address it listens on, as `host:port`. */
  listen(host: string, port: number): Promise<string> {
    return this.#http.listen(host, port)
  }

  /** New handshakes get these certificates; open streams keep theirs. */
  renewTls(options: SecureContextOptions): void {
    this.#http.renewTls(options)
  }

  /** From now on every worker is asked to come back. */
  startDraining(): void {
    this.#isDraining = true
  }

  /** Stops listening and drops the sockets that are not admitted; resolves when all are gone. */
  async close(): Promise<void> {
    // Admissions that end here, or were aborted a moment ago, have their refusal still to be written.
    this.#pending.endAll()
    await nextTurn()
    this.#pending.destroyAll()
    await this.#http.close()
  }

  #onConnection(socket: Socket): void {
    const visit = visitOf(socket, this.#options.clock)
    const onTimeout = () =>
      this.#cut(socket, this.#isDraining ? 'draining' : 'handshake_timeout', visit)
    if (this.#pending.accept(socket, onTimeout)) return
    this.#cut(socket, 'too_many_pending', visit)
  }

  /** Refuses a connection that has not asked for anything yet. */
  #cut(socket: Socket, code: Code, visit: Visit): void {
    const { random, tls } = this.#options
    this.#record(code, visit)
    // Over TLS nothing can be said before a handshake that would cost more than the refusal saves.
    if (tls === undefined) socket.write(refusalResponse(code, random))
    socket.destroySoon()
  }

  async #receive(request: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    const { clock, credentialHeader } = this.#options
    const visit = visitOf(socket, clock)
    // Without an address nothing could be attributed, and the gateway would take us for its owner.
    if (visit.address === '') return void socket.destroy()
    const upgrade = this.#gate(request, visit.address)
    if (!upgrade.ok) return this.#turnAway(socket, upgrade.code, visit)
    const credential = findCredential(request.rawHeaders, credentialHeader())
    if (!credential.ok) return this.#turnAway(socket, credential.code, visit)

    const { address } = visit
    const worker = this.#welcome({
      socket,
      head,
      address,
      upgrade: upgrade.value,
      credential: credential.value,
    })
    this.#pending.onTimeout(socket, () => worker.give(this.#timeoutOf(worker, visit)))
    const handshake = this.#options.dialect(worker)
    const admission = await admit({
      worker,
      handshake,
      line: this.#options.line,
      trail: visit.trail,
      onProven: () => this.#pending.prove(socket),
      release: (admitted) => this.#release(worker, handshake, admitted, visit),
    })
    if (admission.ok) return
    this.#record(admission.code, visit)
    worker.refuse(admission.code, handshake.refusalMessage(admission.code))
  }

  /** Unless the worker is waited for, the time that passes once it has shown its credential is ours. */
  #timeoutOf(worker: Worker, { trail }: Visit): Code {
    if (this.#isDraining) return 'draining'
    const isOurs = trail.hasCredential === true && !worker.isAwaited
    return isOurs ? 'admission_timeout' : 'handshake_timeout'
  }

  /** What can be said of a request without looking at its credential. */
  #gate(request: IncomingMessage, address: string): Verdict<UpgradeRequest> {
    if (this.#isDraining) return { ok: false, code: 'draining' }
    if (!this.#options.isTrustEnabled()) return { ok: false, code: 'trust_disabled' }
    if (!this.#options.failures.has(address)) return { ok: false, code: 'rate_limited' }
    return validateUpgrade(request)
  }

  #welcome(arrived: Arrived): Worker {
    const { clock, random, limits } = this.#options
    return new Worker({
      ...arrived,
      clock,
      random,
      preAuthFrameBytesMax: limits.preAuthFrameBytes,
    })
  }

  /** Synchronous from the last question of the line to the first relayed byte. */
  #release(worker: Worker, handshake: Handshake, admission: Admission, visit: Visit): void {
    const { clock, limits, random, recorder, streamIdPrefix } = this.#options
    const { entry, identity, grant, gateway } = admission
    const { socket } = worker.options
    const openedAt = clock.monotonic()
    const admitted = {
      streamId: `${streamIdPrefix}-${entry.number}`,
      address: visit.address,
      identity,
      role: grant.role,
      durationMs: openedAt - visit.arrivedAt,
    }
    this.#pending.settle(socket)
    worker.release()
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    handshake.release(gateway)
    const stream = splice({
      worker: socket,
      workerHead: worker.head,
      gateway: gateway.socket,
      // A TLS socket takes a turn of the loop for every write: it would hold what it was given.
      gatewayReader: this.#options.tls === undefined ? gateway.reader : undefined,
      gatewayHead: gateway.head,
      messageBytesMax: limits.messageBytes,
      emptyFragmentsMax: limits.emptyFragments,
      gatewayGoneDelayMs: () => random() * GATEWAY_GONE_SPREAD_MS,
      clock,
      onClose: ({ code, counts }) => {
        entry.finish()
        if (entry.revokedAt !== undefined) {
          recorder.revoked(clock.monotonic() - entry.revokedAt)
        }
        recorder.closed({ ...admitted, code, counts, durationMs: clock.monotonic() - openedAt })
      },
    })
    entry.attach(stream)
    recorder.admitted(admitted)
  }

  #turnAway(socket: Socket, code: Code, visit: Visit): void {
    this.#record(code, visit)
    refuseUpgrade(socket, code, this.#options)
  }

  #record(code: Code, { address, trail, arrivedAt }: Visit): void {
    const { clock, failures, recorder } = this.#options
    // Nobody to attribute it to: the peer was gone before we looked.
    if (address === '') return
    if (!isFault(code)) failures.take(address)
    if (CREDENTIAL_CODES.includes(code)) trail.hasCredential = true
    recorder.refused({ code, address, trail, durationMs: clock.monotonic() - arrivedAt })
  }
}

const visitOf = (socket: Socket, clock: Clock): Visit => ({
  address: normalizeAddress(socket.remoteAddress) ?? '',
  trail: {},
  arrivedAt: clock.monotonic(),
})
