/** The configuration in force: what a reload may change, and what waits for a restart. */

import type { LifetimeRules } from '../admissions/lifetime.ts'
import type { AuthenticationRules } from '../authn/authenticator.ts'
import type { ClaimRules } from '../authn/claims.ts'
import { createPolicy, type Policy } from '../authz/policy.ts'
import type { Config } from '../config/schema.ts'
import type { CertificateWatch } from '../edge/certificate-watch.ts'
import { readTls } from '../edge/tls.ts'
import type { WorkerPort } from '../edge/worker-port.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { Runtime } from './runtime.ts'

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

/** Told that a new policy is in force. */
export type PolicyListener = { readonly policyChanged: () => void }

export class LiveConfig {
  #config: Config
  #policy: Policy
  readonly #listeners: PolicyListener[] = []

  constructor(config: Config) {
    this.#config = config
    this.#policy = policyOf(config)
  }

  get config(): Config {
    return this.#config
  }

  get policy(): Policy {
    return this.#policy
  }

  get lifetimeRules(): LifetimeRules {
    const { k8sTrust } = this.#config
    return {
      onTokenExpiry: k8sTrust.onTokenExpiry,
      maxSessionAgeMs: k8sTrust.maxSessionAge,
      terminationGraceMs: k8sTrust.terminationGrace,
      maxWatchStalenessMs: k8sTrust.maxWatchStaleness,
    }
  }

  get authenticationRules(): AuthenticationRules {
    const { k8sTrust } = this.#config
    return {
      expiredTokenReconnectGraceMs: k8sTrust.expiredTokenReconnectGrace,
      onApiOutage: k8sTrust.onApiOutage,
      maxWatchStalenessMs: k8sTrust.maxWatchStaleness,
    }
  }

  /** Where no issuers are configured, the cluster's own are the ones. */
  claimRulesFor(clusterIssuers: readonly string[]): ClaimRules {
    const { kubernetes, k8sTrust } = this.#config
    const found = clusterIssuers.length === 0 ? undefined : clusterIssuers
    return {
      issuers: () => kubernetes.issuers ?? found,
      audiences: k8sTrust.audiences,
      maxTokenLifetimeMs: k8sTrust.maxTokenLifetime,
      expiryGraceMs: k8sTrust.expiredTokenReconnectGrace,
      isListed: this.#policy.isListed,
    }
  }

  /** Tells `listener` of each new policy, after those that listen already. */
  subscribe(listener: PolicyListener): void {
    this.#listeners.push(listener)
  }

  /** Tells all listeners the policy in force: at the start, and after each change. */
  announce(): void {
    for (const listener of this.#listeners) listener.policyChanged()
  }

  /** Takes over what may change, and returns the sections whose changes wait for a restart. */
  apply(next: Config): readonly string[] {
    const k8sTrust = { ...this.#config.k8sTrust }
    for (const name of RELOADED) Object.assign(k8sTrust, { [name]: next.k8sTrust[name] })
    this.#config = { ...this.#config, k8sTrust }
    this.#policy = policyOf(this.#config)
    this.announce()
    const sections = Object.keys(next) as (keyof Config)[]
    return sections.filter(
      (section) => JSON.stringify(next[section]) !== JSON.stringify(this.#config[section]),
    )
  }
}

/** A reload may allow hosting before the restart that its switch waits for. */
const policyOf = ({ k8sTrust, gateway }: Config): Policy => {
  const { allowedIdentities, enabled } = k8sTrust
  const entries = allowedIdentities.map(({ allowSessionHosting, ...entry }) => ({
    ...entry,
    allowSessionHosting: allowSessionHosting && gateway.sessionHosting,
  }))
  return createPolicy(entries, enabled)
}

type ReloadParts = {
  readonly live: LiveConfig
  readonly runtime: Runtime
  readonly metrics: Metrics
  readonly workerPort: Pick<WorkerPort, 'renewTls'>
  readonly certificates: Pick<CertificateWatch, 'use'>
}

/**
 * Puts what `load` returns in force, and reads the certificates again. When that fails, the failure
 * is counted and the last good configuration stays in force.
 */
export function createReload({ live, runtime, metrics, workerPort, certificates }: ReloadParts) {
  const { log, readFile } = runtime
  return (load: () => Config): void => {
    let next: Config
    try {
      next = load()
      const tls = readTls(live.config.listen.tls, readFile)
      if (tls !== undefined) {
        workerPort.renewTls(tls)
        certificates.use(tls)
      }
    } catch (error) {
      metrics.configReloads.inc({ outcome: 'failed' })
      metrics.configReloaded.set(0)
      log.error(
        { reason: String(error) },
        'the new configuration is not valid: the old one stays in force',
      )
      return
    }
    const waitingForRestart = live.apply(next)
    metrics.configReloads.inc({ outcome: 'ok' })
    metrics.configReloaded.set(1)
    log.info({ waitingForRestart }, 'the configuration was reloaded')
  }
}
