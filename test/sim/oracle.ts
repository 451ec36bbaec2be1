/** Judges what is seen from outside against what is true of the simulated cluster. */

import type { IncomingHttpHeaders } from 'node:http'
import type { Handshake } from '@openclaw-k8s/gateway-stub/handshake.ts'
import { OFFERED } from './conversations.ts'
import type { Told, ToldList } from './deliveries.ts'
import type { Attempt } from './sim-worker.ts'
import type { Place, PodTruth, Truth } from './truth.ts'

type OracleOptions = {
  readonly truth: Truth
  readonly now: () => number
  /** Wall time: what a token's expiry is judged by. */
  readonly wall: () => number
  /** `k8sTrust.expiredTokenReconnectGrace`. */
  readonly expiredTokenGraceMs?: number
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
/** A request for a watch that is not answered is given up after 10 s, and made again after a pause. */
const UNANSWERED_MS = 10_000 + 3000
/** How long after the end of a trouble its silence is found out. */
const FOUND_OUT_MS: Partial<Record<Place, number>> = {
  api: SILENT_MS,
  watches: SILENT_MS,
  opening: UNANSWERED_MS,
}
/** While the watch is down, a stream outlives its token by `maxWatchStaleness`, and the sweep's second. */
const STALE_MS = 300_000 + 2000
/** A watch that is silent for two seconds is not believed alone, and a live answer for no longer. */
const UNCONFIRMED_MS = 2000 + PROMPT_MS
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
/**
 * A bad verdict counts for the default of `review.negativeTtl`, 2 s. It may be asked for in the last
 * moment of a trouble, and wait for its turn and for the answer.
 */
const REFUSED_MS = 2000 + 12_000
/** The wall clock may have been set by half a minute since. */
const STEP_MS = 31_000
/** What a worker is told that must look for another token, or give up. */
const FOR_GOOD = new Set([
  'token_expired',
  'token_not_yet_valid',
  'identity_not_allowed',
  'signature_invalid',
  'signing_key_unknown',
  'review_rejected',
  'review_audience_mismatch',
  'review_identity_mismatch',
  'pod_not_found',
  'pod_deleted',
  'pod_terminating',
  'pod_not_running',
  'pod_mismatch',
  'source_address_mismatch',
  'service_account_deleted',
])
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
  readonly issuedAt: number
  readonly expiresAt: number
  /** When a review last found it good. */
  reviewedAt: number | undefined
  /** Whether one did before it expired. */
  wasProven: boolean
  /** The cluster does not have its key any more. */
  isVoid: boolean
}

type Admission = {
  readonly address: string
  readonly token: Token | undefined
  readonly admittedAt: number
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
  /** By the pod's uid. */
  readonly #admissions = new Map<string, Admission[]>()
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
    const { jti, iat, exp } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as {
      readonly jti: string
      readonly iat: number
      readonly exp: number
    }
    const known: Token = {
      accountUid,
      issuedAt: iat,
      expiresAt: exp,
      reviewedAt: undefined,
      wasProven: false,
      isVoid: false,
    }
    this.#tokens.set(jti, known).set(token, known)
    this.#secrets.add(signature)
  }

  /** A review has found a token good. */
  reviewed(token: string): void {
    const known = this.#tokens.get(token)
    if (known === undefined) return
    known.reviewedAt = this.#options.now()
    if (this.#options.wall() < known.expiresAt * 1000) known.wasProven = true
  }

  /** The cluster has other keys: what was signed before is not good any more. */
  voidTokens(): void {
    for (const token of this.#tokens.values()) token.isVoid = true
  }

  /** The sidecar was told of a change by its watch. */
  told(told: Told): void {
    this.#options.truth.tell(told, this.#options.now())
  }

  /** The sidecar was told of all objects of an account by a list. */
  toldList(list: ToldList): void {
    this.#options.truth.tellList(list, this.#options.now())
  }

  /** A worker was told something that comes from the sidecar. */
  toldWorker(text: string): void {
    this.#findSecret(text)
    if (FOREIGN.test(text)) this.fail(`a worker was told: ${text.slice(0, 200)}`)
  }

  /** Who is entitled, and has been since it came, must not be told that it is not. */
  refused({ token, podUid, address, crime, startedAt }: Attempt, code: string): void {
    if (crime !== undefined || !FOR_GOOD.has(code)) return
    const { truth, now, wall } = this.#options
    const pod = truth.pods.get(podUid)
    const known = this.#tokens.get(token)
    if (pod === undefined || known === undefined || known.isVoid) return
    const { goneAt, terminatingAt, addresses, account, name } = pod
    if (goneAt !== undefined || terminatingAt !== undefined) return
    if (addresses.at(-1)?.address !== address) return
    const isItsAccount = known.accountUid !== '' && !truth.accountsGone.has(known.accountUid)
    const isOfNow =
      wall() + STEP_MS < known.expiresAt * 1000 && wall() + STEP_MS > known.issuedAt * 1000
    if (!isItsAccount || !isOfNow) return
    if (!truth.wasAlwaysAllowed(account, startedAt, now())) return
    const isTroubled = (place: Place, ms: number) =>
      truth.lastTrouble(place, startedAt - ms, now()) !== undefined
    if (isTroubled('api', REFUSED_MS) || isTroubled('reviews', REFUSED_MS)) return
    if (
      (['api', 'watches', 'opening', 'delay'] as const).some((place) =>
        isTroubled(place, SILENT_MS),
      )
    )
      return
    this.fail(`${name} is entitled, and was refused with ${code}`)
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
    const admissions = this.#admissions.get(podUid) ?? []
    this.#admissions.set(podUid, admissions)
    admissions.push({ address, token, admittedAt: now() })
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
    this.#judgeOffer(stream, token, what)
  }

  /** At the moment of its release, the gateway has been told just what the policy allows. */
  #judgeOffer({ pod, address }: OpenStream, token: Token | undefined, what: string): void {
    const { truth, isDialOpen = () => false } = this.#options
    // Its pod may be connecting more than once.
    const offers = [...this.#dials].flatMap(([port, attempt]) => {
      const isOwn = attempt.podUid === pod.uid && attempt.address === address
      const isSame = isOwn && this.#tokens.get(attempt.token) === token && isDialOpen(port)
      const offer = isSame ? this.#offers.get(attempt.id) : undefined
      return offer === undefined ? [] : [[...offer].toSorted().join(', ')]
    })
    const allowed = truth.allowedOf(OFFERED).toSorted().join(', ')
    if (offers.length === 0 || offers.includes(allowed)) return
    this.fail(`${what}, and was offered with ${offers.join(' or ')} in place of ${allowed}`)
  }

  /** Whether one of its tries may have been let in. */
  #mayBeIn({ podUid, address, token, startedAt }: Attempt): boolean {
    return (this.#admissions.get(podUid) ?? []).some(
      (each) =>
        each.address === address &&
        each.token === this.#tokens.get(token) &&
        each.admittedAt >= startedAt,
    )
  }

  /**
   * Behind a silent watch the API server is asked about everybody, where it answers, and once more where
   * the gateway takes its time.
   */
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
  #judgeDial(port: number, attempt: Attempt): void {
    const { id, podUid, address, token, startedAt, openedAt } = attempt
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
    const { toldTerminatingAt = Infinity } = pod
    if (this.#options.now() <= toldTerminatingAt + TOLD_MS || this.#mayBeIn(attempt)) return
    this.fail(`${what}, was not let in, and the sidecar was told that it terminates`)
  }

  #judgeToken(token: Token | undefined, what: string): void {
    if (token === undefined) return this.fail(`${what} with a token that nobody has issued`)
    const { expiresAt, reviewedAt, wasProven } = token
    const { wall, expiredTokenGraceMs = 0 } = this.#options
    const expiredMs = wall() - expiresAt * 1000
    if (expiredMs >= expiredTokenGraceMs && expiredMs >= 0) {
      this.fail(`${what} with a token that has expired`)
    }
    if (reviewedAt === undefined) return this.fail(`${what} with a token that was never reviewed`)
    if (expiredMs >= 0) {
      if (!wasProven) this.fail(`${what} with a token that was first reviewed when it had expired`)
      return
    }
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
    const end = (endedMs: number | undefined, why: string, laterMs = 0) =>
      this.#judgeEnd(endedMs ?? Infinity, `${what}, and ${why}`, spareMs + laterMs, startedAt)
    end(pod.goneAt, 'its pod is gone')
    end(truth.accountsGone.get(accountUid), 'its account is gone')
    if (pod.terminatingAt !== undefined) {
      const graceMs = Math.min(pod.graceMs ?? 0, GRACE_MS_MAX)
      end(pod.terminatingAt, 'its pod has terminated', graceMs + SWEEP_MS)
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
    const last = Object.entries(FOUND_OUT_MS).flatMap(([place, ms]) => {
      const trouble = truth.lastTrouble(place as Place, endedMs - ms, now())
      return trouble === undefined ? [] : { trouble, foundMs: Math.max(trouble, endedMs) + ms }
    })
    const [latest] = last.toSorted((one, other) => other.foundMs - one.foundMs)
    if (latest === undefined) return this.fail(`${what} ${since}`)
    const { trouble, foundMs } = latest
    if (now() > foundMs + spareMs) {
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
