/** The configuration in force: what a reload may change, and what waits for a restart. */

import type { LifetimeRules } from '../admissions/lifetime.ts'
import type { AuthenticationRules } from '../authn/authenticator.ts'
import type { ClaimRules } from '../authn/claims.ts'
import { createPolicy, type Policy } from '../authz/policy.ts'
import { ConfigError, type Problem } from '../config/config-error.ts'
import { checkFiles } from '../config/files.ts'
import type { Loaded } from '../config/load.ts'
import type { Config } from '../config/schema.ts'
import type { CertificateWatch } from '../edge/certificate-watch.ts'
import { readClientCa, readPair, type TlsMaterial } from '../edge/tls.ts'
import type { WorkerPort } from '../edge/worker-port.ts'
import { messageOf } from '../lib/errors.ts'
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
  /** What the worker port started with; `undefined` without TLS. */
  readonly tls: TlsMaterial | undefined
}

const CLIENT_CA = 'listen.tls.clientCaFile'
/** The files of the certificates that are renewed. */
const TLS_PATHS = new Set(['listen.tls.certFile', 'listen.tls.keyFile', CLIENT_CA])

/**
 * Puts what `load` returns in force, and reads the certificates again. Neither waits for the other:
 * a mistake in the configuration must not let a certificate expire, and a broken certificate must not
 * keep an identity admitted that was taken off the list. Nor do the server's certificate and the
 * client CA wait for each other. What fails is counted, and what was good before stays in force.
 */
export function createReload(parts: ReloadParts) {
  const { live, runtime, metrics } = parts
  const renewCertificates = createRenewal(parts)
  return (load: () => Loaded): void => {
    const loaded = loadOrExplain(load, runtime)
    const renewal = renewCertificates()
    if (loaded !== undefined) {
      const waitingForRestart = live.apply(loaded.config)
      runtime.log.info({ waitingForRestart }, 'the configuration was reloaded')
    }
    const areFilesGood = judgeFiles([...renewal, ...checkNext(loaded, runtime)], runtime)
    recordReload(metrics, loaded !== undefined && areFilesGood)
  }
}

function loadOrExplain(load: () => Loaded, { log }: Runtime): Loaded | undefined {
  try {
    return load()
  } catch (error) {
    const reason = String(error)
    log.error({ reason }, 'the new configuration is not valid: the old one stays in force')
    return undefined
  }
}

/** What is renewed by itself: each part's problems, and how it is read. */
const TLS_PARTS = [
  { has: ({ path }: Problem) => path !== CLIENT_CA, read: readPair },
  { has: ({ path }: Problem) => path === CLIENT_CA, read: readClientCa },
] as const

/**
 * Uses the certificates as they are now, in the files of the configuration in force: a good pair with
 * the last good client CA, and a good client CA with the last good pair.
 */
function createRenewal({ live, runtime, workerPort, certificates, tls }: ReloadParts) {
  const { readFile } = runtime
  const files = live.config.listen.tls
  if (files === undefined || tls === undefined) return () => []
  let inUse = tls
  /** Between the check and this a file can change, and TLS refuses weak keys. */
  const use = (read: () => Partial<TlsMaterial>): readonly Problem[] => {
    try {
      const renewed = { ...inUse, ...read() }
      workerPort.renewTls(renewed)
      inUse = renewed
      return []
    } catch (error) {
      return [{ path: 'listen.tls', reason: messageOf(error) }]
    }
  }
  return (): readonly Problem[] => {
    const problems = checkFiles(live.config, TLS_PATHS, readFile)
    const good = TLS_PARTS.filter(({ has }) => !problems.some(has))
    const refused = good.flatMap(({ read }) => use(() => read(files, readFile)))
    certificates.use(inUse)
    return [...problems, ...refused]
  }
}

function recordReload(metrics: Metrics, isGood: boolean): void {
  metrics.configReloads.inc({ outcome: isGood ? 'ok' : 'failed' })
  metrics.configReloaded.set(Number(isGood))
}

/** What the next start would not find, although nothing of it is read now. */
const checkNext = (loaded: Loaded | undefined, { readFile }: Runtime): readonly Problem[] =>
  loaded === undefined ? [] : checkFiles(loaded.config, loaded.explicitPaths, readFile)

function judgeFiles(found: readonly Problem[], { log }: Runtime): boolean {
  const problems = [...new Map(found.map((problem) => [JSON.stringify(problem), problem])).values()]
  if (problems.length === 0) return true
  const reason = String(new ConfigError(problems))
  log.error(
    { reason },
    'a file cannot be used: the last good ones stay in force, and the next start would fail',
  )
  return false
}
