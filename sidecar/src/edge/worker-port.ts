/** The worker port: takes over upgrades from the HTTP server and leads each through the line. */

import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { SecureContextOptions, TlsOptions } from 'node:tls'
import { findCredential } from '../authn/credential.ts'
import type { Clock } from '../lib/clock.ts'
import type { Code, Verdict } from '../denial.ts'
import type { Dialect, Handshake } from '../dialect/dialect.ts'
import type { Recorder } from '../observe/recorder.ts'
import { localHostOf } from '../lib/address.ts'
import { splice } from '../tunnel/splice.ts'
import { admit, type Admitted, type Stages } from './admit.ts'
import { connectionOf, type Attempts, type Connection } from './attempts.ts'
import { createHttpServer, type HttpServer } from './http-server.ts'
import { PendingSockets, type PendingEnd } from './pending-sockets.ts'
import { refusalResponse, refuseUpgrade } from './refuse.ts'
import { validateUpgrade, type UpgradeRequest } from './upgrade.ts'
import { Worker, type WorkerOptions } from './worker.ts'

export type WorkerPortOptions = {
  readonly stages: Stages
  readonly dialect: Dialect
  readonly recorder: Recorder
  readonly clock: Clock
  readonly random: () => number
  /** Charges and records failed attempts. */
  readonly attempts: Attempts
  readonly tls: TlsOptions | undefined
  /** The key an address counts under, for limits per address. */
  readonly groupOf: (address: string) => string
  /** Called with every accepted socket. */
  readonly watchPeer: (stream: Duplex) => void
  /** A connection could not be accepted. */
  readonly onAcceptError: (error: Error) => void
  readonly isTrustEnabled: () => boolean
  readonly credentialHeader: () => string
  /**
   * This port's host name as told to the gateway; by default the address each worker connected to.
   */
  readonly publicHost: string | undefined
  /** Prefix of every stream id, so that ids of two processes differ. */
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

/** The workers of a gateway that is gone are told within this time, in milliseconds. */
const GATEWAY_GONE_SPREAD_MS = 2000
const KEEP_ALIVE_MS = 30_000

type AcceptedUpgrade = Pick<
  WorkerOptions,
  'socket' | 'head' | 'address' | 'host' | 'upgrade' | 'credential'
>

export class WorkerPort {
  readonly #options: WorkerPortOptions
  readonly #http: HttpServer
  readonly #pending: PendingSockets
  #isDraining = false

  constructor(options: WorkerPortOptions) {
    const { attempts, clock, groupOf, limits, random, tls, watchPeer } = options
    this.#options = options
    this.#pending = new PendingSockets({
      perAddressMax: limits.pendingPerAddress,
      inAllMax: limits.pending,
      handshakeTimeoutMs: limits.handshakeTimeoutMs,
      clock,
      groupOf,
    })
    this.#http = createHttpServer({
      tls,
      clock,
      random,
      watchPeer,
      headTimeoutMs: limits.handshakeTimeoutMs,
      onRefused: (code, socket) => {
        this.#pending.answer(socket)
        attempts.failed(code, connectionOf(socket, clock))
      },
      onAcceptError: options.onAcceptError,
    })
    this.#http.server.prependListener('connection', (socket) => this.#onConnection(socket))
    this.#http.onUpgrade((request, head) => this.#receive(request, request.socket, head))
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

  /** New TLS handshakes get these certificates; open streams keep theirs. */
  renewTls(options: SecureContextOptions): void {
    this.#http.renewTls(options)
  }

  /** From now on every worker is asked to come back later. */
  startDraining(): void {
    this.#isDraining = true
  }

  /** Stops listening and drops the sockets that are not admitted; resolves when all are gone. */
  async close(): Promise<void> {
    // Admissions that end here, or were aborted a moment ago, still have to write their refusal.
    this.#pending.endAll()
    await nextTurn()
    this.#pending.destroyAll()
    await this.#http.close()
  }

  #onConnection(socket: Socket): void {
    const { attempts, clock } = this.#options
    const connection = connectionOf(socket, clock)
    // Before anything is read: a TLS handshake alone costs more than all that follows a refusal.
    if (this.#findPortObjection(connection.address) === 'rate_limited') {
      return this.#cut(socket, 'rate_limited', connection)
    }
    const isAccepted = this.#pending.accept(socket, {
      onEnd: (why) => this.#cut(socket, this.#codeOf(why), connection),
      onLeft: () => attempts.failed('worker_gone', connection),
    })
    if (!isAccepted) this.#cut(socket, 'too_many_pending', connection)
  }

  /** Refuses a connection that has not requested anything yet. */
  #cut(socket: Socket, code: Code, connection: Connection): void {
    const { attempts, random, tls } = this.#options
    this.#pending.answer(socket)
    attempts.failed(code, connection)
    // Over TLS an answer needs a handshake first, which would cost more than the refusal saves.
    if (tls === undefined) socket.write(refusalResponse(code, random))
    socket.destroySoon()
  }

  /** Keeps no reference to `request`: its headers would be held during the whole admission. */
  #receive(request: IncomingMessage, socket: Socket, head: Buffer): void {
    const { clock, credentialHeader, publicHost = localHostOf(socket) } = this.#options
    const connection = connectionOf(socket, clock)
    this.#pending.answer(socket)
    // Without an address nothing could be attributed, and the gateway would treat us as its owner.
    if (connection.address === '' || publicHost === undefined) return void socket.destroy()
    const upgrade = this.#gate(request, connection.address)
    if (!upgrade.ok) return this.#turnAway(socket, upgrade.code, connection)
    const credential = findCredential(request.rawHeaders, credentialHeader())
    if (!credential.ok) return this.#turnAway(socket, credential.code, connection)

    const { address } = connection
    const worker = this.#createWorker({
      socket,
      head,
      address,
      host: publicHost,
      upgrade: upgrade.value,
      credential: credential.value,
    })
    void this.#lead(worker, connection)
  }

  async #lead(worker: Worker, connection: Connection): Promise<void> {
    const { attempts } = this.#options
    const { socket, address } = worker
    this.#pending.onEnd(socket, (why) => worker.abort(this.#codeOf(why, { worker, connection })))
    const handshake = this.#options.dialect(worker)
    const verdict = await admit({
      worker,
      handshake,
      stages: this.#options.stages,
      attempt: connection.attempt,
      mayContinue: (claims) => attempts.mayContinue({ claims, address }),
      onProven: () => this.#pending.prove(socket),
      release: (admitted) => this.#release(worker, handshake, admitted, connection),
    })
    if (verdict.ok) return
    attempts.failed(verdict.code, connection)
    worker.refuse(verdict.code, handshake.refusalMessage(verdict.code))
  }

  /** Once a worker has shown its credential the time is ours, unless we wait for the worker. */
  #codeOf(
    why: PendingEnd,
    admission?: { readonly worker: Worker; readonly connection: Connection },
  ): Code {
    if (this.#isDraining) return 'draining'
    if (why === 'displaced') return 'too_many_pending'
    const isOurs =
      admission?.connection.attempt.hasCredential === true && !admission.worker.isReading
    return isOurs ? 'admission_timeout' : 'handshake_timeout'
  }

  /** Checks a request without looking at its credential. */
  #gate(request: IncomingMessage, address: string): Verdict<UpgradeRequest> {
    const objection = this.#findPortObjection(address)
    return objection === undefined ? validateUpgrade(request) : { ok: false, code: objection }
  }

  /** Why no request from this address is accepted now. */
  #findPortObjection(address: string): Code | undefined {
    const { attempts, isTrustEnabled } = this.#options
    if (this.#isDraining) return 'draining'
    if (!isTrustEnabled()) return 'trust_disabled'
    return attempts.mayStart(address) ? undefined : 'rate_limited'
  }

  #createWorker(accepted: AcceptedUpgrade): Worker {
    const { clock, random, limits } = this.#options
    return new Worker({
      ...accepted,
      clock,
      random,
      preAuthFrameBytesMax: limits.preAuthFrameBytes,
    })
  }

  /** Synchronous from the last check of the line to the first relayed byte. */
  #release(worker: Worker, handshake: Handshake, admitted: Admitted, connection: Connection): void {
    const { attempts, clock, limits, random, recorder, streamIdPrefix } = this.#options
    const { admission, identity, grant, gateway } = admitted
    const { socket } = worker
    const openedAt = clock.monotonic()
    const session = {
      streamId: `${streamIdPrefix}-${admission.number}`,
      address: connection.address,
      identity,
      role: grant.role,
      durationMs: openedAt - connection.arrivedAt,
    }
    this.#pending.settle(socket)
    const workerHead = worker.release()
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    handshake.release(gateway)
    const stream = splice({
      worker: socket,
      workerHead,
      gateway: gateway.socket,
      // A TLS socket needs an event-loop turn for every write: it would hold the reader's memory.
      gatewayReader: this.#options.tls === undefined ? gateway.reader : undefined,
      gatewayHead: gateway.head,
      messageBytesMax: limits.messageBytes,
      emptyFragmentsMax: limits.emptyFragments,
      gatewayGoneDelayMs: () => random() * GATEWAY_GONE_SPREAD_MS,
      clock,
      onClose: ({ code, counts }) => {
        admission.finish()
        if (admission.revokedAt !== undefined) {
          recorder.revoked(clock.monotonic() - admission.revokedAt)
        }
        const durationMs = clock.monotonic() - openedAt
        attempts.ended(code, durationMs, admission.claims)
        recorder.closed({ ...session, code, counts, durationMs })
      },
    })
    admission.attach(stream)
    recorder.admitted(session)
  }

  #turnAway(socket: Socket, code: Code, connection: Connection): void {
    this.#options.attempts.failed(code, connection)
    refuseUpgrade(socket, code, this.#options)
  }
}
