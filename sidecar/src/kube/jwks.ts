/** The cluster's signing keys and issuer, fetched from the API server itself. */

import { createLocalJWKSet, type CompactVerifyGetKey, type JSONWebKeySet } from 'jose'
import type { Clock } from '../lib/clock.ts'
import { Fault } from '../fault.ts'
import type { KubeClient } from './client.ts'

export type JwksOptions = {
  readonly client: Pick<KubeClient, 'request'>
  readonly clock: Clock
  /** The shortest time between two fetches caused by unknown keys, in milliseconds. */
  readonly cooldownMs: number
  /** How often the keys are fetched again, in milliseconds. */
  readonly refreshMs: number
  /** How long keys stay usable when they cannot be fetched again, in milliseconds. */
  readonly staleAfterMs: number
  readonly deadlineMs: number
  readonly onFetched: () => void
  readonly onFailed: (error: unknown) => void
}

type Keys = { readonly select: CompactVerifyGetKey; readonly issuer: string; readonly at: number }

const DISCOVERY_PATH = '/.well-known/openid-configuration'
/** The host in `jwks_uri` is ignored: a document must not send us elsewhere for keys. */
const KEYS_PATH = '/openid/v1/jwks'

export class Jwks {
  readonly #options: JwksOptions
  #keys: Keys | undefined
  #flight: Promise<'refreshed' | 'failed'> | undefined
  #triedAt = -Infinity
  #cancelRefresh: () => void = () => {}
  #isStopped = false

  constructor(options: JwksOptions) {
    this.#options = options
  }

  /** The current keys, unless they are too old to trust. */
  readonly current = (): CompactVerifyGetKey | undefined =>
    this.#isTrusted() ? this.#keys?.select : undefined

  /**
   * The issuer of the cluster's discovery document. It outlives the keys, since it admits nobody.
   */
  get issuer(): string | undefined {
    return this.#keys?.issuer
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

  /** Fetches now and then every `refreshMs`, sooner after a failure, until `stop`. */
  async start(): Promise<void> {
    const { clock, refreshMs, cooldownMs } = this.#options
    const outcome = await (this.#flight ?? this.#fetch())
    if (this.#isStopped) return
    const nextMs = outcome === 'refreshed' ? refreshMs : Math.min(cooldownMs, refreshMs)
    this.#cancelRefresh = clock.after(nextMs, () => void this.start())
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
        this.#options.onFetched()
        return 'refreshed' as const
      })
      .catch((error: unknown) => {
        this.#options.onFailed(error)
        return 'failed' as const
      })
      .finally(() => {
        this.#flight = undefined
      })
    return this.#flight
  }

  async #load(): Promise<Keys> {
    const [discovery, keys] = await Promise.all([this.#get(DISCOVERY_PATH), this.#get(KEYS_PATH)])
    const issuer = (discovery as { issuer?: unknown } | null)?.issuer
    if (typeof issuer !== 'string' || issuer === '') {
      throw new Fault('keys_unavailable', `The answer of ${DISCOVERY_PATH} has no issuer.`)
    }
    // Throws if the document is not a key set.
    const select = createLocalJWKSet(keys as JSONWebKeySet)
    return { select, issuer, at: this.#options.clock.monotonic() }
  }

  async #get(path: string): Promise<unknown> {
    const { client, deadlineMs } = this.#options
    const { status, body } = await client.request({ method: 'GET', path, deadlineMs })
    if (status !== 200) throw new Fault('keys_unavailable', `${path} answered ${status}.`)
    return body
  }
}
