/** An embedded stand-in for the Kubernetes API server: real TLS, real tokens, faults on demand. */

import { randomUUID } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { bracketed } from '@openclaw-k8s/auth-sidecar/lib/address.ts'
import { systemClock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import type { Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { deliver, Faults, Gate, ROUTES } from './kube-faults.ts'
import type { ApiFault, FaultLimit, Route } from './kube-faults.ts'
import { Pace, tooManyRequests } from './kube-pace.ts'
import type { PaceOptions } from './kube-pace.ts'
import { answerCall, targetOf } from './kube-routes.ts'
import type { Rbac } from './kube-access.ts'
import type { Backend, Target } from './kube-routes.ts'
import { failure, json } from './kube-status.ts'
import type { Answer } from './kube-status.ts'
import { KubeStore, type Resource } from './kube-store.ts'
import { KeyRing, mintToken } from './kube-tokens.ts'
import type { SigningAlgorithm, TokenRequest } from './kube-tokens.ts'
import { createTlsServer } from './kube-listener.ts'
import { Watches } from './kube-watch.ts'
import type { Selection, SentEvent } from './kube-watch.ts'
import { createWorkloads } from './kube-workloads.ts'

export type KubeApiOptions = {
  readonly host?: string
  readonly port?: number
  /** Tells the time of tokens, reviews, watches and delays. */
  readonly clock?: Clock
  readonly issuer?: string
  /** By default on a host nobody can reach, as it often is: keys come from this server itself. */
  readonly jwksUri?: string
  /** The signing algorithms; tokens use the first unless they ask for another. */
  readonly algs?: readonly SigningAlgorithm[]
  /** How long a good review is answered from memory; the real server does so for 10 s. */
  readonly successCacheMs?: number
  readonly sidecar?: { readonly namespace: string; readonly serviceAccount: string }
  readonly gitVersion?: string
  /** The path under which a proxy serves this cluster; anything beside it is another cluster's. */
  readonly prefix?: string
  /** Routes with a limited rate; the others answer as fast as they can. */
  readonly paces?: Partial<Record<Route, PaceOptions>>
  /** Called with each line of a watch that was handed to its socket. */
  readonly onWatchEvent?: (event: SentEvent) => void
  /** Called with each true list that was handed to its socket. */
  readonly onList?: (list: SentList) => void
  /** Called with each token that a review finds good, unless its answer is kept from before. */
  readonly onAuthenticated?: (token: string) => void
}

export type KubeApi = Awaited<ReturnType<typeof startKubeApi>>

/** What was asked, newest last; bearer tokens are not kept. */
type SeenRequest = {
  readonly route: Route
  readonly method: string
  readonly url: string
  readonly userAgent: string | undefined
  readonly remotePort: number | undefined
}

/** A list, as it was answered. */
export type SentList = {
  readonly url: URL
  readonly body: string
  /** When it was true, on the monotonic clock, in milliseconds. */
  readonly decidedMs: number
  readonly socket: Socket
}

const DEFAULT_ISSUER = 'https://kubernetes.default.svc.cluster.local'
const BODY_BYTES_MAX = 3 * 1024 * 1024
const REQUESTS_KEPT = 1000

export const startKubeApi = async (options: KubeApiOptions = {}) => {
  const clock = options.clock ?? systemClock
  const sidecar = options.sidecar ?? { namespace: 'openclaw', serviceAccount: 'openclaw-gateway' }
  const store = new KubeStore()
  const workloads = createWorkloads(store, clock.now)
  const keys = await KeyRing.shared(options.algs ?? ['RS256', 'ES256'])
  const issuer = options.issuer ?? DEFAULT_ISSUER
  const sidecarTokens = new Set<string>()
  const revokedTokens = new Set<string>()
  const nodeUids = new Map<string, string>()
  const backend: Backend = {
    issuer,
    audiences: [issuer],
    keys,
    store,
    nowMs: clock.now,
    jwksUri: options.jwksUri ?? `${issuer}/openid/v1/jwks`,
    gitVersion: options.gitVersion ?? 'v1.35.4',
    successCacheMs: options.successCacheMs ?? 0,
    reviewCache: new Map(),
    sidecarUser: `system:serviceaccount:${sidecar.namespace}:${sidecar.serviceAccount}`,
    sidecarTokens,
    revokedTokens,
    rbac: { tokenReviews: true, pods: true, serviceAccounts: true },
    ...(options.onAuthenticated === undefined ? {} : { onAuthenticated: options.onAuthenticated }),
  }
  const nodeUid = (name: string): string => {
    const uid = nodeUids.get(name) ?? randomUUID()
    nodeUids.set(name, uid)
    return uid
  }
  const mint = (request: TokenRequest): string =>
    mintToken({ issuer: backend.issuer, keys, store, nowMs: clock.now, nodeUid }, request)

  workloads.createServiceAccount(sidecar.namespace, sidecar.serviceAccount)
  const sidecarToken = (lifetime: Pick<TokenRequest, 'expiresInS'> = {}): string => {
    const token = mint({ ...sidecar, audiences: [issuer], ...lifetime })
    sidecarTokens.add(token)
    return token
  }

  const { paces = {}, prefix = '', onWatchEvent, onList } = options
  const traffic = createTraffic({ backend, store, clock, paces, prefix, onWatchEvent, onList })
  const server = await createTlsServer(options, traffic.handle)
  const url = `https://${bracketed(options.host ?? '127.0.0.1')}:${server.port}${prefix}`

  return {
    url,
    port: server.port,
    issuer,
    sidecar,
    nodeUid,
    ...workloads,
    mintToken: mint,
    signingKeys: (): KeyRing['accepted'] => keys.accepted,
    /** Signs with new keys from now on; the old ones are published and accepted if kept. */
    rotateKeys: async (how: { readonly keepOld?: boolean } = {}) => keys.rotate(how),
    /** The first is in every token from now on, and in the discovery; the others are accepted, too. */
    setIssuers: (first: string, ...others: readonly string[]): void => {
      Object.assign(backend, { issuer: first, otherIssuers: others })
    },
    /** A credential of the sidecar, valid until revoked, whatever the clock says. */
    sidecarToken,
    /** Makes one sidecar credential, or all of them so far, a 401. */
    revokeSidecarToken: (token?: string): void => {
      for (const each of token === undefined ? sidecarTokens : [token]) revokedTokens.add(each)
    },
    /** What is set to false is answered 403. */
    setRbac: (rbac: Partial<Rbac>): void => {
      backend.rbac = { ...backend.rbac, ...rbac }
    },
    ...traffic.controls,
    ...server.controls,
    /** Writes what a pod finds under /var/run/secrets, for a sidecar in a separate process. */
    files: async (directory: string) => {
      await mkdir(directory, { recursive: true })
      const caFile = join(directory, 'ca.crt')
      const tokenFile = join(directory, 'token')
      const namespaceFile = join(directory, 'namespace')
      await writeFile(caFile, server.controls.ca())
      await writeFile(tokenFile, sidecarToken(), { mode: 0o600 })
      await writeFile(namespaceFile, sidecar.namespace)
      return { caFile, tokenFile, namespaceFile }
    },
  }
}

type TrafficOptions = {
  readonly backend: Backend
  readonly store: KubeStore
  readonly clock: Clock
  readonly paces: NonNullable<KubeApiOptions['paces']>
  readonly prefix: string
  readonly onWatchEvent: KubeApiOptions['onWatchEvent'] | undefined
  readonly onList: KubeApiOptions['onList'] | undefined
}

/** Everything between a request's arrival and its answer: counts, pace, gates, faults. */
const createTraffic = (options: TrafficOptions) => {
  const { backend, store, clock, paces, prefix, onWatchEvent, onList } = options
  const faults = new Faults()
  const watches = new Watches(store, clock, onWatchEvent)
  const pace = new Map(
    ROUTES.flatMap((route) => {
      const limit = paces[route]
      return limit === undefined ? [] : [[route, new Pace(limit, clock)] as const]
    }),
  )
  const gates = new Map(ROUTES.map((route) => [route, new Gate()]))
  const counts = Object.fromEntries(ROUTES.map((route) => [route, 0])) as Record<Route, number>
  const requests: SeenRequest[] = []
  const waiting = new Set<{ route: Route; atLeast: number; resolve: () => void }>()

  const gate = (route: Route): Gate => {
    const found = gates.get(route)
    if (found === undefined) throw new Error(`there is no route ${route}`)
    return found
  }

  const record = (request: IncomingMessage, target: Target): void => {
    const { route } = target
    counts[route] += 1
    requests.push({
      route,
      method: request.method ?? '',
      url: request.url ?? '',
      userAgent: request.headers['user-agent'],
      remotePort: request.socket.remotePort,
    })
    if (requests.length > REQUESTS_KEPT) requests.shift()
    for (const waiter of waiting) {
      if (waiter.route !== route || counts[route] < waiter.atLeast) continue
      waiting.delete(waiter)
      waiter.resolve()
    }
  }

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '/', 'https://localhost')
    const target = targetUnder(prefix, url)
    record(request, target)
    const fault = faults.take(target.route, target.namespace)
    response.setHeader('date', new Date(clock.now()).toUTCString())
    const body = await readBody(request)
    if ((await pace.get(target.route)?.pass()) === false) {
      return deliver(response, tooManyRequests(), undefined, clock)
    }
    // Decided on arrival, sent later: a verdict can be stale by the time it is sent.
    const answer =
      body === undefined ? TOO_LARGE : answerCall(backend, { request, url, target, body })
    const decidedMs = clock.monotonic()
    await gate(target.route).pass()
    if ('status' in answer) {
      const isTrueList = target.route === 'lists' && answer.status === 200
      if (isTrueList && (fault === undefined || fault.kind === 'delay')) {
        // The response has let go of it by then.
        const { socket } = request
        response.once('finish', () => onList?.({ url, body: answer.body, decidedMs, socket }))
      }
      return deliver(response, answer, fault, clock)
    }
    if (fault === undefined) return watches.serve(answer, url.searchParams, response)
    if (fault.kind !== 'delay') return deliver(response, WATCH_PLACEHOLDER, fault, clock)
    clock.after(fault.ms, () => serveLate(watches, answer, url, response))
  }

  const controls = {
    /** How many requests each route has had since the start. */
    counts: counts as Readonly<Record<Route, number>>,
    requests: requests as readonly SeenRequest[],
    /** Resolves when a route has had at least this many requests. */
    requested: async (route: Route, atLeast: number): Promise<void> => {
      if (counts[route] >= atLeast) return
      await new Promise<void>((resolve) => waiting.add({ route, atLeast, resolve }))
    },
    setFault: (route: Route | '*', fault: ApiFault, limit: FaultLimit = {}): void =>
      faults.set(route, fault, limit),
    clearFaults: (route?: Route | '*', namespace?: string): void => faults.clear(route, namespace),
    /** Holds the answers of a route, which are decided already, until `release`. */
    pause: (route: Route): void => gate(route).pause(),
    release: (route: Route): void => gate(route).release(),
    arrived: async (route: Route): Promise<void> => gate(route).arrived(),
    pauseReviews: (): void => gate('tokenReviews').pause(),
    releaseReviews: (): void => gate('tokenReviews').release(),
    reviewArrived: async (): Promise<void> => gate('tokenReviews').arrived(),
    reviewsHeld: (): number => gate('tokenReviews').held,
    openWatches: (): number => watches.open,
    watchesOpened: async (atLeast: number): Promise<void> => watches.opened(atLeast),
    dropWatches: (): void => watches.drop(),
    finishWatches: (): void => watches.finish(),
    blackholeWatches: (resource?: Resource): void => watches.blackhole(resource),
    expireWatches: (): void => watches.expire(),
    lagWatches: (ms: number): void => watches.lag(ms),
    /** What happens in this call is told to no open watch. */
    withoutLines: (happen: () => void): void => watches.withoutLines(happen),
    sendBookmark: (): void => watches.sendBookmark(),
  }
  return { handle, controls }
}

const TOO_LARGE: Answer = failure({
  code: 413,
  message: `Request entity too large: limit is ${BODY_BYTES_MAX}`,
  reason: 'RequestEntityTooLarge',
})

const targetUnder = (prefix: string, url: URL): Target => {
  if (!url.pathname.startsWith(`${prefix}/`)) return { route: 'unknown' }
  url.pathname = url.pathname.slice(prefix.length)
  return targetOf(url)
}

/** What a faulty watch would have begun with, for the faults that need bytes to spoil. */
const WATCH_PLACEHOLDER = json(200, { type: 'BOOKMARK', object: { kind: 'Pod', apiVersion: 'v1' } })

const serveLate = (
  watches: Watches,
  selection: Selection,
  url: URL,
  response: ServerResponse,
): void => {
  if (!response.destroyed) watches.serve(selection, url.searchParams, response)
}

const readBody = async (request: IncomingMessage): Promise<string | undefined> => {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes <= BODY_BYTES_MAX) chunks.push(chunk)
  }
  return bytes > BODY_BYTES_MAX ? undefined : Buffer.concat(chunks).toString()
}
