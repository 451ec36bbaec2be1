/** Judges what is seen from outside against what is true of the simulated cluster. */

import type { IncomingHttpHeaders } from 'node:http'
import type { Attempt } from './sim-worker.ts'
import type { PodTruth, Truth } from './truth.ts'

type OracleOptions = {
  readonly truth: Truth
  readonly now: () => number
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
/** The close frames may take this long to be exchanged. */
const CLOSE_MS = PROMPT_MS + 5000
/** What the default of `terminationGrace` adds to a pod's own. */
const GRACE_MS = 30_000
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

type OpenStream = {
  readonly pod: PodTruth
  readonly address: string
  readonly accountUid: string
  readonly startedAt: number
}

type Admitted = { readonly podUid: string; readonly address: string; readonly accountUid: string }

const idOf = (agent: string): number => Number(agent.replace('sim/', ''))

export class Oracle {
  readonly attempts = new Map<number, Attempt>()
  readonly #options: OracleOptions
  readonly #secrets = new Set<string>()
  /** The uid of a token's account, by the token and by its id. */
  readonly #accountOf = new Map<string, string>()
  #ids = 0
  #lookAt = 0
  #violation: string | undefined
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
    const { jti } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { jti: string }
    this.#accountOf.set(jti, accountUid).set(token, accountUid)
    this.#secrets.add(signature)
  }

  began(attempt: Omit<Attempt, 'id' | 'startedAt'>): Attempt {
    this.#ids += 1
    const kept = { ...attempt, id: this.#ids, startedAt: this.#options.now() }
    this.attempts.set(kept.id, kept)
    return kept
  }

  /** A connection has come to the gateway: somebody was believed. */
  reachedGateway(headers: IncomingHttpHeaders): void {
    const agent = headers['user-agent'] ?? ''
    const attempt = this.attempts.get(idOf(agent))
    if (attempt === undefined) return this.fail(`the gateway was reached by "${agent}"`)
    if (attempt.crime !== undefined) return this.fail(`${attempt.crime} reached the gateway`)
    const uid = headers['x-openclaw-k8s-pod-uid']
    if (uid !== attempt.podUid) {
      this.fail(`the gateway was told pod ${String(uid)} in place of ${attempt.podUid}`)
    }
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
        accountUid: this.#accountOf.get(String(line['credentialId'])) ?? '',
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
      this.#judge(stream, `the stream of ${stream.pod.name} is open`, CLOSE_MS)
    }
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
    const accountUid = this.#accountOf.get(token) ?? ''
    this.#judge({ pod, address, accountUid, startedAt }, `${pod.name} sends`, PROMPT_MS)
  }

  #wasAdmitted(streamId: string, { podUid, address, accountUid }: Admitted): void {
    const { truth, now } = this.#options
    const pod = truth.pods.get(podUid)
    if (pod === undefined) return this.fail(`a stranger was admitted as pod ${podUid}`)
    const stream = { pod, address, accountUid, startedAt: now() }
    this.#streams.set(streamId, stream)
    const what = `${pod.name} was admitted`
    this.#judge(stream, what, PROMPT_MS)
    this.#judgeEnd(pod.terminatingAt ?? Infinity, `${what} and terminates`, PROMPT_MS)
    if (!truth.wasAllowed(pod.account, now(), now())) {
      this.fail(`${what}, and ${pod.account} is not allowed`)
    }
  }

  /** Whether all that a stream needs is still true, or ended so lately that it may still be there. */
  #judge({ pod, address, accountUid, startedAt }: OpenStream, what: string, spareMs: number): void {
    const { truth, now } = this.#options
    const end = (endedMs: number | undefined, why: string) =>
      this.#judgeEnd(endedMs ?? Infinity, `${what}, and ${why}`, spareMs, startedAt)
    end(pod.goneAt, 'its pod is gone')
    end(truth.accountsGone.get(accountUid), 'its account is gone')
    if (pod.terminatingAt !== undefined) {
      end(pod.terminatingAt + (pod.graceMs ?? 0) + GRACE_MS, 'its pod has terminated')
    }
    const had = pod.addresses.find((each) => each.address === address)
    if (had === undefined) this.fail(`${what}, and its pod never had the address ${address}`)
    else end(had.untilMs, `its pod does not have the address ${address} any more`)
    const forbidden = truth.forbiddenSince(pod.account)
    if (forbidden !== undefined && now() > forbidden + spareMs) {
      this.fail(`${what}, and its account is not allowed since ${now() - forbidden} ms`)
    }
  }

  /**
   * Something that a stream needs ended at `endedMs`. The stream must have ended with it: at once, or,
   * where the way to the API server was in trouble since, when the silence was found out.
   */
  #judgeEnd(endedMs: number, what: string, spareMs: number, startedAt = 0): void {
    const { truth, now } = this.#options
    if (now() <= endedMs + spareMs) return
    const since = `since ${Math.round(now() - endedMs)} ms`
    const trouble = truth.lastTrouble('api', endedMs - SILENT_MS, now())
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
