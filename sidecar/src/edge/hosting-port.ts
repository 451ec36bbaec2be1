/** Session hosting at the worker port: leads its requests through their line, and relays them. */

import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { denied, type Code, type Verdict } from '../denial.ts'
import { ignoreError } from '../lib/peer-errors.ts'
import type { AuthAttempt } from '../observe/recorder.ts'
import type { GatewayConnection } from '../tunnel/dial.ts'
import type { HostedGateway } from '../tunnel/hosted-gateway.ts'
import type { TransferSummary } from '../tunnel/transfer.ts'
import {
  admitHosted,
  type AdmitHostedRequest,
  type AdmittedHosted,
  type HostedStages,
} from './admit-hosted.ts'
import type { Attempts, Connection } from './attempts.ts'
import { discardBody } from './discard-body.ts'
import { Entrant } from './entrant.ts'
import { findRequestedRoute, readHostedRequest, type HostedRequest } from './hosted-request.ts'
import type { PlainRequest } from './http-server.ts'
import { finishAdmission, openStream, sessionOf, type StreamOptions } from './open-stream.ts'
import type { PendingEnd, PendingSockets } from './pending-sockets.ts'
import { refuseUpgrade } from './refuse.ts'
import type { RequestHead, UpgradeRequest } from './upgrade.ts'
import { Worker } from './worker.ts'

/** What the worker port and session hosting have in common. */
export type SharedPort = StreamOptions & {
  readonly attempts: Attempts
  readonly pending: Pick<PendingSockets, 'onEnd' | 'prove' | 'settle'>
  readonly credentialHeader: () => string
  readonly preAuthFrameBytesMax: number
  /** The code of a pending socket that has to go. */
  readonly codeOf: (why: PendingEnd, isOurs: boolean) => Code
}

export type HostingOptions = {
  readonly isEnabled: boolean
  readonly stages: HostedStages
  readonly gateway: Pick<HostedGateway, 'dial' | 'transfer'>
}

/** A request that the port lets in, from a peer with an address. */
export type Arrival = { readonly connection: Connection; readonly host: string }

/** What is the same for an upgrade and for a transfer. */
type Line<G> = Pick<
  AdmitHostedRequest<G>,
  'kind' | 'connect' | 'isGone' | 'disconnect' | 'beforeRefusal'
> & {
  readonly worker: Entrant
  readonly connection: Connection
  readonly release: (admitted: AdmittedHosted<G>) => void
}

/** A transfer that failed at the gateway costs its pod as much as a stream that ends at once. */
const STATUS_FAILED_MIN = 400

export class HostingPort {
  readonly #options: HostingOptions
  readonly #port: SharedPort

  constructor(options: HostingOptions, port: SharedPort) {
    this.#options = options
    this.#port = port
  }

  /** Reads a request for one of the routes; `undefined` for every other request. */
  find(
    request: RequestHead,
    isUpgrade: boolean,
    attempt: AuthAttempt,
  ): Verdict<HostedRequest> | undefined {
    const route = findRequestedRoute(request, isUpgrade)
    if (route === undefined) return undefined
    attempt.route = route
    if (!this.#options.isEnabled) return denied('session_hosting_disabled')
    return readHostedRequest(request, route, this.#port.credentialHeader())
  }

  /** Leads an upgrade; `head` are the bytes behind it. */
  async upgrade(
    hosted: HostedRequest,
    { connection, host }: Arrival,
    { socket, head, upgrade }: { socket: Socket; head: Buffer; upgrade: UpgradeRequest },
  ): Promise<void> {
    const { clock, random, preAuthFrameBytesMax } = this.#port
    const { address } = connection
    const worker = new Worker({
      socket,
      head,
      address,
      host,
      upgrade,
      credential: hosted.token === undefined ? undefined : { token: hosted.token },
      clock,
      random,
      preAuthFrameBytesMax,
    })
    const refused = await this.#lead<GatewayConnection>({
      kind: 'hosted',
      worker,
      connection,
      connect: (signal) => this.#options.gateway.dial(hosted, { address, host }, signal),
      isGone: (gateway) => gateway.socket.destroyed,
      disconnect: (gateway) => gateway.socket.destroy(),
      beforeRefusal: () => Promise.resolve(),
      release: (admitted) => {
        const workerHead = worker.release()
        worker.open(undefined)
        const entry = { ...admitted, connection, route: hosted.route }
        openStream({ ...entry, socket, workerHead }, this.#port)
      },
    })
    if (refused !== undefined) worker.refuse(refused, undefined)
  }

  /** Leads a plain request. Its body is not read before its pod is proven. */
  async request(
    hosted: HostedRequest,
    arrival: Arrival,
    { request, response, passBody }: PlainRequest,
  ): Promise<void> {
    const { connection } = arrival
    const { socket } = request
    const { clock } = this.#port
    for (const stream of [request, response]) stream.on('error', ignoreError)
    forgetHeaders(request)
    if (hosted.contentLength !== undefined) {
      passBody(hosted.contentLength)
      socket.pause()
    }
    const { address } = connection
    const sender = new Entrant({ socket, address, token: hosted.token })
    const refused = await this.#lead<undefined>({
      kind: 'transfer',
      worker: sender,
      connection,
      connect: async () => undefined,
      isGone: () => false,
      disconnect: () => {},
      beforeRefusal: async ({ signal }) => {
        if (hosted.contentLength === undefined) return
        // It counts as a stream of its pod from here on, and has the time of a transfer.
        this.#port.pending.settle(socket)
        await discardBody(request, { clock, signal })
      },
      release: (admitted) => {
        sender.leave()
        this.#transfer(hosted, arrival, { request, response, admitted })
      },
    })
    if (refused === undefined) return
    sender.leave()
    refuseUpgrade(socket, refused, this.#port)
  }

  /** Returns why the request was refused. */
  async #lead<G>({ connection, release, worker, ...line }: Line<G>): Promise<Code | undefined> {
    const { attempts, pending, codeOf } = this.#port
    const { address, attempt } = connection
    const { socket } = worker
    pending.onEnd(socket, (why) => worker.abort(codeOf(why, true)))
    const verdict = await admitHosted<G>({
      ...line,
      worker,
      stages: this.#options.stages,
      attempt,
      mayContinue: (claims) => attempts.mayContinue({ claims, address }),
      onProven: () => pending.prove(socket),
      release: (admitted) => {
        pending.settle(socket)
        release(admitted)
      },
    })
    if (verdict.ok) return undefined
    return attempts.failed(verdict.code, connection)
  }

  #transfer(
    hosted: HostedRequest,
    { connection, host }: Arrival,
    {
      request,
      response,
      admitted,
    }: Omit<PlainRequest, 'passBody'> & { readonly admitted: AdmittedHosted<undefined> },
  ): void {
    const { clock, recorder } = this.#port
    const { admission } = admitted
    const openedAt = clock.monotonic()
    const entry = { ...admitted, connection, route: hosted.route }
    const session = sessionOf(entry, this.#port)
    const onClose = ({ code, status, counts }: TransferSummary) => {
      finishAdmission(admission, this.#port)
      const durationMs = clock.monotonic() - openedAt
      // A turn fetches many files, one after another: only what fails is charged.
      const isFailed = code !== 'completed' || (status ?? 0) >= STATUS_FAILED_MIN
      if (isFailed) this.#port.attempts.ended(code, durationMs, admission.claims)
      recorder.closed({ ...session, code, counts, durationMs })
    }
    admission.attach(
      this.#options.gateway.transfer({
        call: hosted,
        source: { address: connection.address, host },
        request,
        response,
        refuse: (code) => refuseUpgrade(request.socket, code, this.#port),
        onClose,
      }),
    )
    recorder.admitted(session)
  }
}

/** A request lives as long as its transfer, and must not keep a token alive. */
function forgetHeaders(request: IncomingMessage): void {
  request.rawHeaders = []
  request.headers = {}
  request.headersDistinct = {}
}
