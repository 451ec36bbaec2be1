/** The worker port: takes over upgrades from the HTTP server and leads each through the line. */

import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { TLSSocket } from 'node:tls'
import { findCredential } from '../authn/credential.ts'
import type { Clock } from '../lib/clock.ts'
import type { Code, Verdict } from '../denial.ts'
import type { Dialect, Handshake } from '../dialect/dialect.ts'
import type { AuthAttempt, Recorder } from '../observe/recorder.ts'
import type { TlsFailure } from '../observe/tls-failures.ts'
import { localHostOf } from '../lib/address.ts'
import { admit, type Admitted, type Stages } from './admit.ts'
import { connectionOf, type Attempts, type Connection } from './attempts.ts'
import { HostingPort, type Arrival, type HostingOptions } from './hosting-port.ts'
import { createHttpServer, type HttpServer, type PlainRequest } from './http-server.ts'
import { openStream, type StreamOptions } from './open-stream.ts'
import { PendingSockets, type PendingEnd } from './pending-sockets.ts'
import { refusalResponse, refuseUpgrade } from './refuse.ts'
import { connectionUnder, readTlsFailure } from './tls-failure.ts'
import type { TlsMaterial } from './tls.ts'
import { validateUpgrade } from './upgrade.ts'
import { Worker } from './worker.ts'

export type WorkerPortOptions = {
  readonly stages: Stages
  readonly dialect: Dialect
  /** Session hosting, allowed or not; `undefined` where the protocol knows none. */
  readonly hosting?: HostingOptions | undefined
  readonly recorder: Recorder
  readonly clock: Clock
  readonly random: () => number
  /** Charges and records failed attempts. */
  readonly attempts: Attempts
  readonly tls: TlsMaterial | undefined
  /** The key an address counts under, for limits per address. */
  readonly groupOf: (address: string) => string
  /** Called with every accepted socket. */
  readonly watchPeer: (stream: Duplex) => void
  /** A connection could not be accepted. */
  readonly onAcceptError: (error: Error) => void
  /** A TLS handshake failed; the address is empty if it is not known any more. */
  readonly onTlsFailure: (reason: TlsFailure, address: string) => void
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

export class WorkerPort {
  readonly #options: WorkerPortOptions
  readonly #http: HttpServer
  readonly #pending: PendingSockets
  readonly #streams: StreamOptions
  readonly #hosting: HostingPort | undefined
  /** Over TLS: accepted connections, and with which code we ended those that we ended ourselves. */
  readonly #handshakes = new WeakMap<Socket, { readonly address: string; cut?: Code }>()
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
    this.#streams = { ...options, isTls: tls !== undefined }
    this.#hosting = options.hosting && this.#createHosting(options.hosting)
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
      onTlsFailure: (error, socket) => this.#onTlsFailure(error, socket),
    })
    this.#http.server.prependListener('connection', (socket) => this.#onConnection(socket))
    this.#http.onUpgrade((request, head) => this.#receive(request, request.socket, head))
    this.#http.onRequest((plain) => this.#take(plain))
  }

  #createHosting(hosting: HostingOptions): HostingPort {
    const { attempts, credentialHeader, limits } = this.#options
    return new HostingPort(hosting, {
      ...this.#streams,
      attempts,
      pending: this.#pending,
      credentialHeader,
      preAuthFrameBytesMax: limits.preAuthFrameBytes,
      codeOf: (why, isOurs) => this.#codeOf(why, isOurs),
    })
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

  /** New TLS handshakes get these certificates, and no session is resumed; open streams keep theirs. */
  renewTls(material: TlsMaterial): void {
    this.#http.renewTls(material)
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
    const { attempts, clock, tls } = this.#options
    const connection = connectionOf(socket, clock)
    if (tls !== undefined) this.#handshakes.set(socket, { address: connection.address })
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
    const handshake = this.#handshakes.get(socket)
    if (handshake !== undefined) handshake.cut = code
    // Over TLS an answer needs a handshake first, which would cost more than the refusal saves.
    if (tls === undefined) socket.write(refusalResponse(code, random))
    socket.destroySoon()
  }

  #onTlsFailure(error: Error, socket: TLSSocket): void {
    const connection = connectionUnder(socket)
    const { address = '', cut } = (connection && this.#handshakes.get(connection)) ?? {}
    const reason = cut === 'handshake_timeout' ? 'timeout' : readTlsFailure(error, socket)
    // What we cut for another reason has its code, and a probe of the port sends nothing.
    const isCut = cut !== undefined && reason !== 'timeout'
    const isProbe = reason === 'reset' && connection?.bytesRead === 0
    if (!isCut && !isProbe) this.#options.onTlsFailure(reason, address)
  }

  /** Keeps no reference to `request`: its headers would be held during the whole admission. */
  #receive(request: IncomingMessage, socket: Socket, head: Buffer): void {
    const arrival = this.#arrive(socket)
    if (arrival === undefined) return
    const { connection, host } = arrival
    const { address, attempt } = connection
    const upgrade = this.#gate(address, () => validateUpgrade(request))
    if (!upgrade.ok) return this.#turnAway(socket, upgrade.code, connection)
    const hosted = this.#hosting?.find(request, true, attempt)
    if (hosted !== undefined) {
      if (!hosted.ok) return this.#turnAway(socket, hosted.code, connection)
      const { value } = upgrade
      return void this.#hosting?.upgrade(hosted.value, arrival, { socket, head, upgrade: value })
    }
    const credential = findCredential(request.rawHeaders, this.#options.credentialHeader())
    if (!credential.ok) return this.#turnAway(socket, credential.code, connection)

    const { clock, random, limits } = this.#options
    const worker = new Worker({
      socket,
      head,
      address,
      host,
      upgrade: upgrade.value,
      credential: credential.value,
      clock,
      random,
      preAuthFrameBytesMax: limits.preAuthFrameBytes,
    })
    void this.#lead(worker, connection)
  }

  /** Whether a plain request is session hosting's; it is answered then. */
  #take(plain: PlainRequest): boolean {
    const { request } = plain
    const { socket } = request
    const attempt: AuthAttempt = {}
    const found = this.#hosting?.find(request, false, attempt)
    if (found === undefined) return false
    const arrival = this.#arrive(socket)
    if (arrival === undefined) return true
    const connection = { ...arrival.connection, attempt }
    const hosted = this.#gate(connection.address, () => found)
    if (!hosted.ok) this.#turnAway(socket, hosted.code, connection)
    else void this.#hosting?.request(hosted.value, { ...arrival, connection }, plain)
    return true
  }

  /** Someone answers this socket from here on. Cuts a peer without an address. */
  #arrive(socket: Socket): Arrival | undefined {
    const { clock, publicHost: host = localHostOf(socket) } = this.#options
    const connection = connectionOf(socket, clock)
    this.#pending.answer(socket)
    if (connection.address !== '' && host !== undefined) return { connection, host }
    // Nothing could be attributed, and the gateway would treat us as its owner.
    socket.destroy()
    return undefined
  }

  async #lead(worker: Worker, connection: Connection): Promise<void> {
    const { attempts } = this.#options
    const { socket, address } = worker
    // Once a worker has shown its credential the time is ours, unless we wait for the worker.
    const isOurs = () => connection.attempt.hasCredential === true && !worker.isReading
    this.#pending.onEnd(socket, (why) => worker.abort(this.#codeOf(why, isOurs())))
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
    const told = attempts.failed(verdict.code, connection)
    worker.refuse(told, handshake.refusalMessage(told))
  }

  /** `isOurs`: whether the socket waits for us, not for its worker. */
  #codeOf(why: PendingEnd, isOurs = false): Code {
    if (this.#isDraining) return 'draining'
    if (why === 'displaced') return 'too_many_pending'
    return isOurs ? 'admission_timeout' : 'handshake_timeout'
  }

  /** Checks a request without looking at its credential. */
  #gate<T>(address: string, check: () => Verdict<T>): Verdict<T> {
    const objection = this.#findPortObjection(address)
    return objection === undefined ? check() : { ok: false, code: objection }
  }

  /** Why no request from this address is accepted now. */
  #findPortObjection(address: string): Code | undefined {
    const { attempts, isTrustEnabled } = this.#options
    if (this.#isDraining) return 'draining'
    if (!isTrustEnabled()) return 'trust_disabled'
    return attempts.mayStart(address) ? undefined : 'rate_limited'
  }

  /** Synchronous from the last check of the line to the first relayed byte. */
  #release(worker: Worker, handshake: Handshake, admitted: Admitted, connection: Connection): void {
    const { admission, identity, grant, gateway } = admitted
    const { socket } = worker
    this.#pending.settle(socket)
    const workerHead = worker.release()
    handshake.release(gateway)
    const { role } = grant
    const entry = { admission, identity, role, connection }
    openStream({ ...entry, socket, workerHead, gateway }, this.#streams)
  }

  #turnAway(socket: Socket, code: Code, connection: Connection): void {
    this.#options.attempts.failed(code, connection)
    refuseUpgrade(socket, code, this.#options)
  }
}
