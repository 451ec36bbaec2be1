/** The cluster's signing keys and issuer, fetched from the API server itself. */

import { createLocalJWKSet, type CompactVerifyGetKey, type JSONWebKeySet } from 'jose'
import type { Clock } from '../lib/clock.ts'
import { Fault } from '../fault.ts'
import { Backoff } from '../lib/backoff.ts'
import { OwnCredentialRefused, type KubeClient } from './client.ts'

export type JwksOptions = {
  readonly client: Pick<KubeClient, 'request'>
  readonly clock: Clock
  readonly random: () => number
  /** Whether the cluster's own issuer is of no interest: others are configured. */
  readonly isIssuerConfigured: boolean
  /** The shortest time between two fetches caused by unknown keys, in milliseconds. */
  readonly cooldownMs: number
  /** How often the keys are fetched again, in milliseconds. */
  readonly refreshMs: number
  /** How long keys stay usable when they cannot be fetched again, in milliseconds. */
  readonly staleAfterMs: number
  readonly deadlineMs: number
  readonly onFetched: () => void
  readonly onFailed: (error: unknown) => void
  /** The issuer could not be asked for, which says nothing of the keys; `undefined` when it could. */
  readonly onIssuerAsked: (error?: unknown) => void
  /** The cluster has another issuer; the newest is the first of `issuers`. */
  readonly onIssuerChanged: (issuers: readonly string[]) => void
  /** Review-only mode begins, when keys that were fetched earlier no longer serve, or ends. */
  readonly onReviewOnly: (isReviewOnly: boolean) => void
}

/** What the API server says of its issuer; `absent`: it has no discovery document for us. */
type IssuerAnswer = 'named' | 'absent' | 'failed'

/**
 * `renewed`: the API server has named its issuer, this one or another, since the caller came. `unchanged`:
 * the issuers are configured. `cooldown`: its last answer is older than that, and names another.
 */
export type IssuerRenewal = 'renewed' | 'unchanged' | 'cooldown' | 'failed'

type Keys = { readonly select: CompactVerifyGetKey; readonly at: number }

const DISCOVERY_PATH = '/.well-known/openid-configuration'
/** The host in `jwks_uri` is ignored: a document must not send us elsewhere for keys. */
const KEYS_PATH = '/openid/v1/jwks'
/** The first wait before the next try, where keys were never fetched, in milliseconds. */
const RETRY_MS_MIN = 250

/** The most issuers that are remembered. */
const ISSUERS_MAX = 4
/** Of the keys that Kubernetes signs with. */
const KEY_TYPES = new Set(['RSA', 'EC'])

/** The API server answered that it serves this to nobody, or not to us. */
class Absent extends Fault {}

export class Jwks {
  readonly #options: JwksOptions
  readonly #retries: Backoff
  #keys: Keys | undefined
  #issuers: readonly string[] = []
  /** The newest answer of the API server is that it serves no keys. */
  #isKeyless = false
  #wasReviewOnly = false
  /** The question of `renewIssuer`, and when it was asked. */
  #question: Promise<IssuerAnswer> | undefined
  #questionAt = -Infinity
  #keysFlight: Promise<boolean> | undefined
  #keysAskedAt = -Infinity
  #issuerFlight: Promise<IssuerAnswer> | undefined
  #issuerAbsentAt = -Infinity
  #cancelRefresh: () => void = () => {}
  #isStopped = false

  constructor(options: JwksOptions) {
    this.#options = options
    const { cooldownMs: maxMs, random } = options
    this.#retries = new Backoff({ minMs: RETRY_MS_MIN, maxMs, random })
  }

  /** The current keys, unless they are too old to trust. */
  readonly current = (): CompactVerifyGetKey | undefined =>
    this.#isTrusted() ? this.#keys?.select : undefined

  /**
   * The issuer of the cluster's discovery document. It outlives the keys, since it admits nobody.
   */
  get issuer(): string | undefined {
    return this.#issuers[0]
  }

  /**
   * The same, and before it what the document said earlier, the newest first. While an issuer is
   * changed, the cluster accepts the tokens of both.
   */
  get issuers(): readonly string[] {
    return this.#issuers
  }

  /**
   * Whether the API server has answered that it serves no keys, as a cluster without an https issuer
   * does: until it serves some, only a TokenReview can prove a token.
   */
  get isReviewOnly(): boolean {
    return this.#isKeyless && this.current() === undefined
  }

  /**
   * Whether the API server has answered that it does not name its issuer, and no longer ago than keys
   * stay usable.
   */
  get isIssuerAbsent(): boolean {
    const { clock, staleAfterMs } = this.#options
    return this.issuer === undefined && clock.monotonic() - this.#issuerAbsentAt < staleAfterMs
  }

  /** Milliseconds since the keys were last fetched; `undefined` before the first time. */
  get ageMs(): number | undefined {
    return this.#keys === undefined ? undefined : this.#options.clock.monotonic() - this.#keys.at
  }

  /**
   * Fetches the keys unless that was tried within the cooldown. Concurrent callers share one fetch. One
   * that began before the caller came is `cooldown`: it may not know of a new key.
   */
  readonly refresh = async (): Promise<'refreshed' | 'cooldown' | 'failed'> => {
    const { clock, cooldownMs } = this.#options
    const since = clock.monotonic()
    const isCoolingDown = since - this.#keysAskedAt < cooldownMs
    if (this.#keysFlight === undefined && isCoolingDown) return 'cooldown'
    const { hasKeys } = this.#fetch()
    const askedAt = this.#keysAskedAt
    if (!(await hasKeys)) return 'failed'
    return askedAt >= since ? 'refreshed' : 'cooldown'
  }

  /** Fetches the keys and the issuer, whatever the cooldown, and waits for both. */
  readonly load = async (): Promise<{ hasKeys: boolean; issuer: IssuerAnswer }> => {
    const fetched = this.#fetch()
    const [hasKeys, issuer] = await Promise.all([fetched.hasKeys, fetched.issuer])
    return { hasKeys, issuer }
  }

  /**
   * Asks whether the cluster has this issuer now, at most once per cooldown; concurrent callers share
   * one question. Only one that was asked after the caller came may show that the issuer is foreign.
   */
  readonly renewIssuer = async (issuer: string): Promise<IssuerRenewal> => {
    const { clock, cooldownMs, isIssuerConfigured } = this.#options
    if (isIssuerConfigured) return 'unchanged'
    const since = clock.monotonic()
    const isCoolingDown = since - this.#questionAt < cooldownMs
    if (this.#question === undefined && isCoolingDown) return 'cooldown'
    const question = this.#question ?? this.#askForIssuer()
    const askedAt = this.#questionAt
    if ((await question) !== 'named') return 'failed'
    return askedAt >= since || this.#issuers.includes(issuer) ? 'renewed' : 'cooldown'
  }

  /** Fetches now and then every `refreshMs`, sooner after a failure, until `stop`. */
  async start(): Promise<void> {
    const { clock, refreshMs } = this.#options
    const { hasKeys, issuer } = await this.load()
    if (this.#isStopped) return
    const isDone = hasKeys && issuer !== 'failed'
    const nextMs = isDone ? refreshMs : this.#retryMs()
    this.#cancelRefresh = clock.after(nextMs, () => void this.start())
  }

  /** Quickly at the start, when workers wait for the keys. */
  #retryMs(): number {
    const { cooldownMs, refreshMs } = this.#options
    const longestMs = Math.min(cooldownMs, refreshMs)
    const isStarting = this.#keys === undefined
    return isStarting ? Math.min(longestMs, this.#retries.next()) : longestMs
  }

  stop(): void {
    this.#isStopped = true
    this.#cancelRefresh()
  }

  #isTrusted(): boolean {
    const age = this.ageMs
    return age !== undefined && age < this.#options.staleAfterMs
  }

  #askForIssuer(): Promise<IssuerAnswer> {
    this.#questionAt = this.#options.clock.monotonic()
    this.#question = this.#fetchIssuer().finally(() => {
      this.#question = undefined
    })
    return this.#question
  }

  /** The keys and the issuer: neither waits for the other, nor fails with it. Joins what is in flight. */
  #fetch(): { hasKeys: Promise<boolean>; issuer: Promise<IssuerAnswer> } {
    this.#issuerFlight ??= this.#fetchIssuer().finally(() => {
      this.#issuerFlight = undefined
    })
    if (this.#keysFlight === undefined) {
      this.#keysAskedAt = this.#options.clock.monotonic()
      this.#keysFlight = this.#fetchKeys().finally(() => {
        this.#keysFlight = undefined
      })
    }
    return { hasKeys: this.#keysFlight, issuer: this.#issuerFlight }
  }

  async #fetchKeys(): Promise<boolean> {
    const { clock, onFetched, onFailed } = this.#options
    try {
      const select = readKeys(await this.#get(KEYS_PATH))
      this.#keys = { select, at: clock.monotonic() }
    } catch (error) {
      if (error instanceof Absent) this.#isKeyless = true
      this.#tellReviewOnly()
      // The stop itself ends a fetch.
      if (!this.#isStopped) onFailed(error)
      return false
    }
    this.#isKeyless = false
    this.#tellReviewOnly()
    onFetched()
    return true
  }

  async #fetchIssuer(): Promise<IssuerAnswer> {
    const { clock, isIssuerConfigured, onIssuerAsked } = this.#options
    if (isIssuerConfigured) return 'named'
    try {
      const issuer = await this.#findIssuer()
      if (issuer === undefined) this.#issuerAbsentAt = clock.monotonic()
      onIssuerAsked()
      this.#learnIssuer(issuer)
      return issuer === undefined ? 'absent' : 'named'
    } catch (error) {
      if (!this.#isStopped) onIssuerAsked(error)
      return 'failed'
    }
  }

  #learnIssuer(issuer: string | undefined): void {
    if (issuer === undefined || issuer === this.#issuers[0]) return
    const earlier = this.#issuers.filter((known) => known !== issuer)
    this.#issuers = [issuer, ...earlier].slice(0, ISSUERS_MAX)
    if (earlier.length > 0) this.#options.onIssuerChanged(this.#issuers)
  }

  /** `undefined` where the API server answers that it has no discovery document for us. */
  async #findIssuer(): Promise<string | undefined> {
    try {
      const issuer = ((await this.#get(DISCOVERY_PATH)) as { issuer?: unknown } | null)?.issuer
      if (typeof issuer === 'string' && issuer !== '') return issuer
    } catch (error) {
      if (error instanceof Absent) return undefined
      throw error
    }
    throw new Fault('keys_unavailable', `The answer of ${DISCOVERY_PATH} has no issuer.`)
  }

  /** Called after each fetch: while there are no keys, the next is never far away. */
  #tellReviewOnly(): void {
    const { isReviewOnly } = this
    if (this.#wasReviewOnly === isReviewOnly) return
    this.#wasReviewOnly = isReviewOnly
    this.#options.onReviewOnly(isReviewOnly)
  }

  async #get(path: string): Promise<unknown> {
    const { client, deadlineMs } = this.#options
    try {
      const { status, body } = await client.request({ method: 'GET', path, deadlineMs })
      if (status === 200) return body
      const what = `${path} answered ${status}.`
      throw status === 404
        ? new Absent('keys_unavailable', what)
        : new Fault('keys_unavailable', what)
    } catch (error) {
      if (!(error instanceof OwnCredentialRefused) || error.status !== 403) throw error
      throw new Absent('keys_unavailable', `${path} answered 403.`, { cause: error })
    }
  }
}

/** Throws if the document is not a key set, or has no key that a token can be signed with. */
function readKeys(body: unknown): CompactVerifyGetKey {
  const select = createLocalJWKSet(body as JSONWebKeySet)
  const { keys } = body as JSONWebKeySet
  if (keys.some(({ kty }) => kty !== undefined && KEY_TYPES.has(kty))) return select
  throw new Absent('keys_unavailable', `${KEYS_PATH} has no key that signs tokens.`)
}
