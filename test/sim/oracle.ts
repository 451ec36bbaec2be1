/** Judges what is seen from outside against what is true of the simulated cluster. */

import type { IncomingHttpHeaders } from 'node:http'
import type { Handshake } from '@openclaw-k8s/gateway-stub/handshake.ts'
import type { Told } from './deliveries.ts'
import type { Attempt } from './sim-worker.ts'
import type { PodTruth, Truth } from './truth.ts'

type OracleOptions = {
  readonly truth: Truth
  readonly now: () => number
  /** Wall time: what a token's expiry is judged by. */
  readonly wall: () => number
  /** Whether the sidecar's end of a connection that it dialed from this port is open. */
  readonly isDialOpen?: (port: number) => boolean
  /** Whether what an attempt has come to at the gateway behaves as a gateway should. */
  readonly isGatewayWell?: (agent: string) => boolean
}

/** An event reaches the sidecar within this time, and ends a stream within a second more. */
const PROMPT_MS = 1200
/**
 * A watch that says nothing counts as dead after at most 35 s; then it is listed again, after a pause
 * of at most 3 s, within 15 s.
 */
const SILENT_MS = 35_000 + 3000 + 15_000
/** While the watch is down, a stream outlives its token by `maxWatchStaleness`, and the sweep's second. */
const STALE_MS = 300_000 + 2000
/** A watch that is silent for two seconds is not believed alone, and a live answer for as long. */
const UNCONFIRMED_MS = 2000 + 2000 + PROMPT_MS
/** The longest delay of a watch. */
const DELAY_MS_MAX = 10_000
/** The close frames may take this long to be exchanged. */
const CLOSE_MS = PROMPT_MS + 5000
/** What the sidecar was told of ends a stream within this time: both its sockets are gone. */
const TOLD_MS = 1000
/**
 * The default of `limits.handshakeTimeout`: a pending admission is let in or refused within this time.
 * Only its last check sees that its pod has moved: before, the watch may not have shown the address yet.
 */
const PENDING_MS = 15_000
/** The sweep looks at every stream once in this time. */
const SWEEP_MS = 1000
/** The default of `terminationGrace`: the most that a pod's own grace counts. */
const GRACE_MS_MAX = 30_000
/** The default of `review.cacheTtl`, and the longest admission: a wait, a review, a handshake. */
const REVIEWED_MS = 60_000 + 10_000 + 30_000
/** A message may be under way to the gateway for this long after a trouble. */
const UNDERWAY_MS = 10_000
/** A token's expiry is looked at with this tolerance. */
const SKEW_MS = 60_000
const TOKEN_MS = 600_000
const LINES_KEPT = 30
/** Streams are looked at this often. */
const LOOK_MS = 100
/** What looks like the last part of a token. */
const SIGNATURE = /(?<![\w-])[\w-]{86}(?![\w-])/g
/** What only the API server says: nothing of it may come to a worker. */
const FOREIGN = /etcdserver|invalid bearer|go-jose|simulated trouble|kubernetes\.default/

type OpenStream = {
  readonly pod: PodTruth
  readonly address: string
  readonly accountUid: string
  readonly startedAt: number
}

type ToldOptions = {
  /** After the sidecar was told, in milliseconds. */
  readonly spareMs?: number
  /** The same for what only the last check of a pending admission sees, besides. */
  readonly pendingMs?: number
  /** The commands that the gateway was offered. */
  readonly offer?: readonly string[] | undefined
}

type Token = {
  readonly accountUid: string
  /** Seconds of wall time. */
  readonly expiresAt: number
  /** When a review last found it good. */
  reviewedAt: number | undefined
}

type Admitted = { readonly podUid: string; readonly address: string; readonly tokenId: string }

/** Who tells no pod is the sidecar itself. */
export const isOfWorker = (headers: IncomingHttpHeaders): boolean =>
  headers['x-openclaw-k8s-pod-uid'] !== undefined

const idOf = (agent: string): number => Number(agent.replace('sim/', ''))

export class Oracle {
  readonly attempts = new Map<number, Attempt>()
  readonly #options: OracleOptions
  readonly #secrets = new Set<string>()
  /** By the token, and by its id. */
  readonly #tokens = new Map<string, Token>()
  /** What the node of each attempt offered to the gateway. */
  readonly #offers = new Map<number, readonly string[]>()
  #ids = 0
  #lookAt = 0
  #violation: string | undefined
  /** Whom the sidecar has dialed the gateway for, by its port. */
  readonly #dials = new Map<number, Attempt>()
  /** By the id of the stream, from its admission to the end of both its sockets. */
  readonly #streams = new Map<string, OpenStream>()
  readonly audited = { admitted: 0, refused: 0, closed: 0 }

  constructor(options: OracleOptions) {
    this.#options = options
  }

  /** The first promise that was broken. */
  get violation(): string | undefined {
    return this.#violation
  }

  fail(problem: string): void {
    this.#violation ??= problem
  }

  /** A token was issued, or forged. */
  minted(token: string, accountUid: string): void {
    const [, claims = '', signature = ''] = token.split('.')
    const { jti, exp } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as {
      readonly jti: string
      readonly exp: number
    }
    const known: Token = { accountUid, expiresAt: exp, reviewedAt: undefined }
    this.#tokens.set(jti, known).set(token, known)
    this.#secrets.add(signature)
  }

  /** A review has found a token good. */
  reviewed(token: string): void {
    const known = this.#tokens.get(token)
    if (known !== undefined) known.reviewedAt = this.#options.now()
  }

  /** The sidecar was told of a change by its watch. */
  told(told: Told): void {
    this.#options.truth.tell(told, this.#options.now())
  }

  /** A worker was told something that comes from the sidecar. */
  toldWorker(text: string): void {
    this.#findSecret(text)
    if (FOREIGN.test(text)) this.fail(`a worker was told: ${text.slice(0, 200)}`)
  }

  /** A worker has waited for an answer that should have come long ago. */
  waitedInVain({ id, podUid, crime, openedAt = 0 }: Attempt): void {
    const { truth, now, isGatewayWell = () => true } = this.#options
    const pod = truth.pods.get(podUid)
    if (pod === undefined || crime !== undefined) return
    const isTroubled = (['workers', 'gateway'] as const).some(
      (peer) => truth.lastTrouble(peer, openedAt, now()) !== undefined,
    )
    if (isTroubled || !isGatewayWell(`sim/${id}`)) return
    this.fail(`${pod.name} is open, and its message is lost`)
  }

  began(attempt: Omit<Attempt, 'id' | 'startedAt'>): Attempt {
    this.#ids += 1
    const kept = { ...attempt, id: this.#ids, startedAt: this.#options.now() }
    this.attempts.set(kept.id, kept)
    return kept
  }

  /** A connection has come to the gateway: somebody was believed. */
  reachedGateway({ headers, peerPort }: Pick<Handshake, 'headers' | 'peerPort'>): void {
    // The sidecar itself, as the gateway's operator or to ask whether workers would be let in.
    if (!isOfWorker(headers)) return
    const agent = headers['user-agent'] ?? ''
    const attempt = this.attempts.get(idOf(agent))
    if (attempt === undefined) return this.fail(`the gateway was reached by "${agent}"`)
    if (attempt.crime !== undefined) return this.fail(`${attempt.crime} reached the gateway`)
    const uid = headers['x-openclaw-k8s-pod-uid']
    if (uid !== attempt.podUid) {
      this.fail(`the gateway was told pod ${String(uid)} in place of ${attempt.podUid}`)
    }
    const forwarded = headers['x-forwarded-for']
    if (forwarded !== attempt.address) {
      this.fail(`the gateway was told address ${String(forwarded)} in place of ${attempt.address}`)
    }
    this.#dials.set(peerPort, attempt)
  }

  /** A node's `connect` has come to the gateway. */
  connected(headers: IncomingHttpHeaders, params: Readonly<Record<string, unknown>>): void {
    if (!isOfWorker(headers)) return this.fail('a node came to the gateway without a name')
    const { truth, now } = this.#options
    const { commands = [], auth } = params as {
      readonly commands?: readonly string[]
      readonly auth?: Readonly<Record<string, string>>
    }
    this.#offers.set(idOf(headers['user-agent'] ?? ''), commands)
    for (const secret of Object.values(auth ?? {})) this.#findSecret(secret)
    const trouble = truth.lastTrouble('gateway', now() - UNDERWAY_MS, now())
    const sinceMs = trouble === undefined ? 100 : UNDERWAY_MS
    if (trouble === Infinity || truth.wereCommandsAllowed(commands, now() - sinceMs, now())) return
    this.fail(`the gateway was offered ${commands.join(', ')}, which is not allowed`)
  }

  /** A message has come to the gateway on a connection of the sidecar's own. */
  reachedAsOperator(text: string): void {
    this.#findSecret(text)
    if (text.includes('"node.event"')) this.fail("a worker's words came over another connection")
  }

  /** The newest lines of log and audit. */
  readonly lastLines: string[] = []

  #keep(line: string): void {
    this.lastLines.push(`${this.#options.now()} ${line.trimEnd()}`)
    if (this.lastLines.length > LINES_KEPT) this.lastLines.shift()
  }

  wroteLog(line: string): void {
    this.#keep(line)
    this.#findSecret(line)
  }

  wroteAudit(text: string): void {
    this.#keep(text)
    this.#findSecret(text)
    const line = JSON.parse(text) as Readonly<Record<string, unknown>>
    const streamId = String(line['streamId'])
    if (line['event'] === 'k8s-auth-success') {
      this.audited.admitted += 1
      this.#wasAdmitted(streamId, {
        podUid: String(line['podUid']),
        address: String(line['remoteIp']),
        tokenId: String(line['credentialId']),
      })
    } else if (line['event'] === 'k8s-session-closed') {
      this.audited.closed += 1
      this.#streams.delete(streamId)
    } else this.audited.refused += Number(line['count'])
  }

  /** Looks at every open stream. */
  check(): void {
    const now = this.#options.now()
    if (now < this.#lookAt) return
    this.#lookAt = now + LOOK_MS
    for (const stream of this.#streams.values()) {
      const what = `the stream of ${stream.pod.name} is open`
      this.#judge(stream, what, CLOSE_MS)
    }
    for (const [port, attempt] of this.#dials) this.#judgeDial(port, attempt)
  }

  /** A message has come to the gateway. */
  reached(agent: string): void {
    const attempt = this.attempts.get(idOf(agent))
    const pod = this.#options.truth.pods.get(attempt?.podUid ?? '')
    if (attempt === undefined || pod === undefined) return
    const { truth, now } = this.#options
    // It may have left the sidecar long ago.
    if (truth.lastTrouble('gateway', now() - UNDERWAY_MS, now()) !== undefined) return
    const { address, startedAt, token } = attempt
    const { accountUid = '' } = this.#tokens.get(token) ?? {}
    this.#judge({ pod, address, accountUid, startedAt }, `${pod.name} sends`, PROMPT_MS)
  }

  #wasAdmitted(streamId: string, { podUid, address, tokenId }: Admitted): void {
    const { truth, now } = this.#options
    const pod = truth.pods.get(podUid)
    if (pod === undefined) return this.fail(`a stranger was admitted as pod ${podUid}`)
    const token = this.#tokens.get(tokenId)
    const { accountUid = '' } = token ?? {}
    const stream = { pod, address, accountUid, startedAt: now() }
    this.#streams.set(streamId, stream)
    const what = `${pod.name} was admitted`
    this.#judgeToken(token, what)
    this.#judgeTold(stream, what)
    this.#judge(stream, what, PROMPT_MS)
    this.#judgeEnd(pod.terminatingAt ?? Infinity, `${what} and terminates`, PROMPT_MS)
    if (now() > (pod.toldTerminatingAt ?? Infinity)) {
      this.fail(`${what}, and the sidecar was told that it terminates`)
    }
    const forbidden = truth.forbiddenSince(pod.account)
    if (forbidden !== undefined) this.fail(`${what}, and ${pod.account} is not allowed`)
    this.#judgeUnconfirmed(stream, what)
  }

  /** Behind a silent watch the API server is asked about everybody, where it answers. */
  #judgeUnconfirmed({ pod, accountUid }: OpenStream, what: string): void {
    const { truth, now } = this.#options
    const isTroubled =
      truth.lastTrouble('api', now() - UNDERWAY_MS, now()) !== undefined ||
      truth.lastTrouble('delay', now() - UNDERWAY_MS - DELAY_MS_MAX, now()) !== undefined
    const goneAt = Math.min(pod.goneAt ?? Infinity, truth.accountsGone.get(accountUid) ?? Infinity)
    if (isTroubled || now() <= goneAt + UNCONFIRMED_MS) return
    this.fail(`${what}, ${Math.round(now() - goneAt)} ms after its pod or account went`)
  }

  /** The way to the gateway is closed at once, whatever the worker does with its close frame. */
  #judgeDial(port: number, { id, podUid, address, token, startedAt, openedAt }: Attempt): void {
    const { truth, isDialOpen = () => false } = this.#options
    const pod = truth.pods.get(podUid)
    if (pod === undefined || !isDialOpen(port)) return void this.#dials.delete(port)
    const { accountUid = '' } = this.#tokens.get(token) ?? {}
    const what = `${pod.name} is connected to the gateway`
    this.#judgeTold({ pod, address, accountUid, startedAt }, what, {
      spareMs: TOLD_MS,
      pendingMs: openedAt === undefined ? PENDING_MS : 0,
      offer: this.#offers.get(id),
    })
  }

  #judgeToken(token: Token | undefined, what: string): void {
    if (token === undefined) return this.fail(`${what} with a token that nobody has issued`)
    const { expiresAt, reviewedAt } = token
    if (this.#options.wall() >= expiresAt * 1000) this.fail(`${what} with a token that has expired`)
    if (reviewedAt === undefined) return this.fail(`${what} with a token that was never reviewed`)
    const agoMs = this.#options.now() - reviewedAt
    // A good answer is kept by the API server as well.
    if (agoMs > REVIEWED_MS) this.fail(`${what} with a token that was reviewed ${agoMs} ms ago`)
  }

  /** What the sidecar was told must have its effect at once, in trouble or not. */
  #judgeTold(
    { pod, address, accountUid }: OpenStream,
    what: string,
    { spareMs = 0, pendingMs = 0, offer = [] }: ToldOptions = {},
  ): void {
    const { truth, now } = this.#options
    const end = (toldMs: number | undefined, why: string, laterMs = 0) => {
      if (toldMs === undefined || now() <= toldMs + spareMs + laterMs) return
      this.fail(`${what}, and ${why}, as the sidecar was told ${now() - toldMs} ms ago`)
    }
    end(pod.toldGoneAt, 'its pod is gone')
    end(truth.accountsTold.get(accountUid), 'its account is gone')
    const had = pod.addresses.find((each) => each.address === address)
    end(had?.toldUntilMs, `its pod does not have the address ${address} any more`, pendingMs)
    end(truth.forbiddenSince(pod.account), 'its account is not allowed')
    if (pod.toldTerminatingAt !== undefined) {
      const graceMs = Math.min(pod.graceMs ?? 0, GRACE_MS_MAX)
      end(pod.toldTerminatingAt + graceMs + SWEEP_MS, 'its pod has terminated')
    }
    end(truth.commandsForbiddenSince(offer), `it offers ${offer.join(', ')}, which is not allowed`)
  }

  /** Whether all that a stream needs is still true, or ended so lately that it may still be there. */
  #judge({ pod, address, accountUid, startedAt }: OpenStream, what: string, spareMs: number): void {
    const { truth } = this.#options
    const end = (endedMs: number | undefined, why: string) =>
      this.#judgeEnd(endedMs ?? Infinity, `${what}, and ${why}`, spareMs, startedAt)
    end(pod.goneAt, 'its pod is gone')
    end(truth.accountsGone.get(accountUid), 'its account is gone')
    if (pod.terminatingAt !== undefined) {
      const graceMs = Math.min(pod.graceMs ?? 0, GRACE_MS_MAX)
      end(pod.terminatingAt + graceMs + SWEEP_MS, 'its pod has terminated')
    }
    const had = pod.addresses.find((each) => each.address === address)
    if (had === undefined) this.fail(`${what}, and its pod never had the address ${address}`)
    else end(had.untilMs, `its pod does not have the address ${address} any more`)
  }

  /**
   * Something that a stream needs ended at `endedMs`. The stream must have ended with it: at once, or,
   * where the way to the API server was in trouble since, when the silence was found out.
   */
  #judgeEnd(endedMs: number, what: string, spareMs: number, startedAt = 0): void {
    const { truth, now } = this.#options
    if (now() <= endedMs + spareMs) return
    const since = `since ${Math.round(now() - endedMs)} ms`
    const troubles = (['api', 'watches'] as const).flatMap(
      (place) => truth.lastTrouble(place, endedMs - SILENT_MS, now()) ?? [],
    )
    const trouble = troubles.length === 0 ? undefined : Math.max(...troubles)
    if (trouble === undefined) return this.fail(`${what} ${since}`)
    if (now() > Math.max(trouble, endedMs) + SILENT_MS + spareMs) {
      this.fail(`${what} ${since}, ${Math.round(now() - trouble)} ms after the last trouble`)
    }
    const expiresMs = startedAt + TOKEN_MS + SKEW_MS
    if (trouble === Infinity && now() > Math.max(endedMs, expiresMs) + STALE_MS + SILENT_MS) {
      this.fail(`${what} ${since}, and its token has expired`)
    }
  }

  #findSecret(text: string): void {
    for (const [found] of text.matchAll(SIGNATURE)) {
      if (this.#secrets.has(found)) this.fail(`a token was written down: ${text.slice(0, 200)}`)
    }
  }
}
