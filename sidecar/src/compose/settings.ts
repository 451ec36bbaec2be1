/** The configuration in force: what a reload may change, and what waits for a restart. */

import { createPolicy, type Policy } from '../authz/policy.ts'
import type { Config } from '../config/schema.ts'

/** Options of `k8sTrust` that take effect at once; everything else takes effect at the next start. */
export const RELOADED = [
  'enabled',
  'allowedIdentities',
  'auditLog',
  'credentialHeader',
  'sourceAddress',
  'allowHostNetwork',
  'maxTokenLifetime',
  'onTokenExpiry',
  'expiredTokenReconnectGrace',
  'maxSessionAge',
  'terminationGrace',
  'maxWatchStaleness',
  'onApiOutage',
] as const satisfies readonly (keyof Config['k8sTrust'])[]

export class Settings {
  #config: Config
  #policy: Policy

  constructor(config: Config) {
    this.#config = config
    this.#policy = policyOf(config.k8sTrust)
  }

  get config(): Config {
    return this.#config
  }

  get policy(): Policy {
    return this.#policy
  }

  /** Takes over what may change, and returns the sections whose changes wait for a restart. */
  apply(next: Config): readonly string[] {
    const k8sTrust = { ...this.#config.k8sTrust }
    for (const name of RELOADED) Object.assign(k8sTrust, { [name]: next.k8sTrust[name] })
    this.#config = { ...this.#config, k8sTrust }
    this.#policy = policyOf(k8sTrust)
    const sections = Object.keys(next) as (keyof Config)[]
    return sections.filter(
      (section) => JSON.stringify(next[section]) !== JSON.stringify(this.#config[section]),
    )
  }
}

const policyOf = ({ allowedIdentities, enabled }: Config['k8sTrust']): Policy =>
  createPolicy(allowedIdentities, enabled)
