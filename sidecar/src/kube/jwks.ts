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
  /** The cluster has another issuer; the newest is the first of `issuers`. */
  readonly onIssuerChanged: (issuers: readonly string[]) => void
  /** Review-only mode begins or ends. */
  readonly onReviewOnly: (isReviewOnly: boolean) => void
}

type Keys = { readonly select: CompactVerifyGetKey; readonly at: number }

const DISCOVERY_PATH = '/.well-known/openid-configuration'
/** The host in `jwks_uri` is ignored: a document must not send us elsewhere for keys. */
const KEYS_PATH = '/openid/v1/jwks'
/** The first wait before the next try, where keys were never fetched, in milliseconds. */
const RETRY_MS_MIN = 250

/** The most issuers that are remembered. */
const ISSUERS_MAX = 4

/** The API server answered that it serves this to nobody, or not to us. */
class Absent extends Fault {}

export class Jwks {
  readonly #options: JwksOptions
  readonly #retries: Backoff
  #keys: Keys | undefined
  #issuers: readonly string[] = []
  #isReviewOnly = false
  #flight: Promise<'refreshed' | 'failed'> | undefined
  #triedAt = -Infinity
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
    return this.#isReviewOnly && this.current() === undefined
  }

  /** Milliseconds since the keys were last fetched; `undefined` before the first time. */
  get ageMs(): number | undefined {
    return this.#keys === undefined ? undefined : this.#options.clock.monotonic() - this.#keys.at
  }

  /**
   * Fetches the keys unless that was tried within the cooldown. Concurrent callers share one fetch.
   */
  readonly refresh = async (): Promise<'refreshed' | 'cooldown' | 'failed'> => {
    if (this.#flight !== undefined) return this.#flight
    const { clock, cooldownMs } = this.#options
    if (clock.monotonic() - this.#triedAt < cooldownMs) return 'cooldown'
    return this.#fetch()
  }

  /** Fetches the issuer with the keys, as `refresh` does; false where it cannot have changed. */
  readonly renewIssuer = async (): Promise<boolean> =>
    !this.#options.isIssuerConfigured && (await this.refresh()) === 'refreshed'

  /** Fetches now and then every `refreshMs`, sooner after a failure, until `stop`. */
  async start(): Promise<void> {
    const { clock, refreshMs } = this.#options
    const outcome = await (this.#flight ?? this.#fetch())
    if (this.#isStopped) return
    const nextMs = outcome === 'refreshed' ? refreshMs : this.#retryMs()
    this.#cancelRefresh = clock.after(nextMs, () => void this.start())
  }

  /** Quickly at the start, when workers wait for the keys. */
  #retryMs(): number {
    const { cooldownMs, refreshMs } = this.#options
    const longestMs = Math.min(cooldownMs, refreshMs)
    const isStarting = this.#keys === undefined && !this.#isReviewOnly
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

  #fetch(): Promise<'refreshed' | 'failed'> {
    this.#triedAt = this.#options.clock.monotonic()
    this.#flight = this.#load()
      .then((keys) => {
        this.#keys = keys
        this.#setReviewOnly(false)
        this.#options.onFetched()
        return 'refreshed' as const
      })
      .catch((error: unknown) => {
        if (error instanceof Absent) this.#setReviewOnly(true)
        // The stop itself ends a fetch.
        if (!this.#isStopped) this.#options.onFailed(error)
        return 'failed' as const
      })
      .finally(() => {
        this.#flight = undefined
      })
    return this.#flight
  }

  async #load(): Promise<Keys> {
    const { isIssuerConfigured } = this.#options
    const [issuer, keys] = await Promise.all([
      isIssuerConfigured ? undefined : this.#findIssuer(),
      this.#get(KEYS_PATH),
    ])
    // Throws if the document is not a key set.
    const select = createLocalJWKSet(keys as JSONWebKeySet)
    this.#learnIssuer(issuer)
    return { select, at: this.#options.clock.monotonic() }
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

  #setReviewOnly(isReviewOnly: boolean): void {
    if (this.#isReviewOnly === isReviewOnly) return
    this.#isReviewOnly = isReviewOnly
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
