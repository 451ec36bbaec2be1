/** Assembles what the sidecar shows of itself: readiness, streams, refusals, ages, certificates. */

import { sumByPod } from '../admissions/pod-streams.ts'
import type { AdmissionRegistry } from '../admissions/registry.ts'
import { CODES, type Code } from '../denial.ts'
import type { Jwks } from '../kube/jwks.ts'
import { describeScope } from '../kube/scope.ts'
import type { PodWatch } from '../kube/pod-watch.ts'
import type { WatchedScopes } from '../kube/watched-scopes.ts'
import type { CertificateState } from '../lib/certificates.ts'
import type { Clock } from '../lib/clock.ts'
import type { RecentRefusal, RecentRefusals } from '../observe/recent-refusals.ts'
import type { CertificateFile, CertificateWatch } from './certificate-watch.ts'
import { judgeReadiness, type CheckResult, type ReadinessCheck } from './readiness.ts'

/** Times are ISO 8601 in UTC. Names of pods come from strangers: escape them. */
export type Status = {
  readonly at: string
  readonly version: string
  /** When the process started to serve. */
  readonly startedAt: string
  readonly isReady: boolean
  /** A check without an `objection` is passed; `warnings` do not make the sidecar unready. */
  readonly checks: readonly CheckResult[]
  readonly streams: {
    /** Open streams, and pods that have one. */
    readonly open: number
    readonly pods: number
    /** The pods that came last, at most 200. */
    readonly listed: readonly StreamRow[]
  }
  /** Of the last hour, the latest first; at most 200. */
  readonly refusals: readonly RefusalRow[]
  readonly watch: {
    readonly pods: number
    /** For how long a scope that was listed has had no watch to trust; 0 while all have one. */
    readonly staleSeconds: number
    readonly scopes: number
    /** The scopes that are not `synced`, at most 50. */
    readonly bad: readonly { readonly scope: string; readonly state: string }[]
  }
  readonly keys: {
    /** Absent before the first fetch. */
    readonly ageSeconds?: number
    /** The cluster serves no keys: a TokenReview alone proves a token. */
    readonly isReviewOnly: boolean
  }
  /** Of the worker port; none without TLS. */
  readonly certificates: readonly CertificateRow[]
}

type StreamRow = {
  readonly namespace: string
  readonly podName: string
  readonly serviceAccount: string
  readonly nodeName?: string | undefined
  readonly address: string
  /** Its own streams, and those of the sessions that it hosts. */
  readonly own: number
  readonly hosted: number
  readonly since: string
  readonly messagesUp: number
  readonly messagesDown: number
  readonly bytesUp: number
  readonly bytesDown: number
}

type RefusalRow = {
  readonly code: Code
  readonly kind: 'denial' | 'fault'
  /** What the worker is told. */
  readonly message: string
  readonly address: string
  /** Whether a watched pod has this address now. */
  readonly isOfPod: boolean
  readonly route?: string | undefined
  readonly pod?: RecentRefusal['pod']
  /** False where the token's signature was not verified, so that anybody can have written `pod`. */
  readonly isSigned: boolean
  /** Counts the names of one address beyond the first few, which are not listed. */
  readonly isOfManyPods: boolean
  readonly count: number
  readonly firstAt: string
  readonly lastAt: string
}

type CertificateRow = {
  readonly file: CertificateFile
  readonly notBefore: string
  readonly notAfter: string
  /** What makes it unfit, in sentences. */
  readonly faults: readonly string[]
  /** It should have been renewed by now. */
  readonly isEndingSoon: boolean
}

export type StatusSources = {
  readonly clock: Clock
  readonly version: string
  readonly checks: readonly ReadinessCheck[]
  readonly registry: Pick<AdmissionRegistry, 'listAdmitted'>
  readonly refusals: Pick<RecentRefusals, 'list'>
  readonly watch: Pick<PodWatch, 'size' | 'hasAddress'> & {
    readonly scopes: Pick<WatchedScopes, 'listStates' | 'longestStaleForMs'>
  }
  readonly jwks: Pick<Jwks, 'ageMs' | 'isReviewOnly'>
  readonly certificates: Pick<CertificateWatch, 'states'>
}

const STREAMS_MAX = 200
const SCOPES_MAX = 50

/** Returns a function that assembles the status of now. */
export function createStatus(sources: StatusSources): () => Promise<Status> {
  const { clock, version, checks, registry, refusals, watch, certificates } = sources
  const startedAt = toIso(clock.now())
  return async () => {
    const { isReady, results } = await judgeReadiness(checks)
    const pods = sumByPod(registry.listAdmitted())
    const toWall = (monotonic: number) => toIso(clock.now() - (clock.monotonic() - monotonic))
    return {
      at: toIso(clock.now()),
      version,
      startedAt,
      isReady,
      checks: results,
      streams: {
        open: pods.reduce((sum, { own, hosted }) => sum + own + hosted, 0),
        pods: pods.length,
        listed: pods
          .slice(0, STREAMS_MAX)
          .map(({ admittedAt, ...pod }) => ({ ...pod, since: toWall(admittedAt) })),
      },
      refusals: refusals
        .list()
        .map((refusal) => describeRefusal(refusal, watch.hasAddress(refusal.address))),
      ...describeCluster(sources),
      certificates: [...certificates.states()].map(describeCertificate),
    }
  }
}

const toIso = (ms: number): string => new Date(ms).toISOString()

/** To a tenth of a second. */
const toSeconds = (ms: number): number => Math.round(ms / 100) / 10

function describeRefusal(
  { firstAt, lastAt, ...refusal }: RecentRefusal,
  isOfPod: boolean,
): RefusalRow {
  const { kind, message } = CODES[refusal.code]
  return { ...refusal, isOfPod, kind, message, firstAt: toIso(firstAt), lastAt: toIso(lastAt) }
}

function describeCertificate([file, state]: readonly [CertificateFile, CertificateState]) {
  const { notBefore, notAfter, faults, isEndingSoon } = state
  const reasons = faults.map(({ reason }) => reason)
  return {
    file,
    notBefore: toIso(notBefore),
    notAfter: toIso(notAfter),
    faults: reasons,
    isEndingSoon,
  }
}

function describeCluster({ watch, jwks }: StatusSources): Pick<Status, 'watch' | 'keys'> {
  const scopes = watch.scopes.listStates()
  const bad = scopes.filter(({ state }) => state !== 'synced').slice(0, SCOPES_MAX)
  const { ageMs, isReviewOnly } = jwks
  return {
    watch: {
      pods: watch.size,
      staleSeconds: toSeconds(watch.scopes.longestStaleForMs),
      scopes: scopes.length,
      bad: bad.map(({ scope, state }) => ({ scope: describeScope(scope), state })),
    },
    keys: { ...(ageMs === undefined ? {} : { ageSeconds: toSeconds(ageMs) }), isReviewOnly },
  }
}
