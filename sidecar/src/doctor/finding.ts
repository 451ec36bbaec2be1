/** What the doctor reports: one line for each check, with a remedy where something is wrong. */

import type { Clock } from '../lib/clock.ts'
import type { ReadFile } from '../config/files.ts'
import type { Loaded } from '../config/load.ts'
import type { Config } from '../config/schema.ts'
import { Fault } from '../fault.ts'
import type { KubeClient } from '../kube/client.ts'
import type { Interfaces } from '../lib/own-addresses.ts'

/** The sidecar's configuration and environment, as they are inside its container. */
export type DoctorContext = Loaded & {
  readonly env: NodeJS.ProcessEnv
  readonly readFile: ReadFile
  readonly clock: Clock
  readonly interfaces: Interfaces
}

/** What a check needs in order to ask the API server. */
export type ClusterCheck = {
  readonly client: KubeClient
  readonly config: Config
  readonly deadlineMs: number
}

/** The worst first. */
export const LEVELS = ['fail', 'warn', 'ok'] as const

export type Finding = {
  readonly level: (typeof LEVELS)[number]
  /** What was checked. */
  readonly name: string
  /** What was found. */
  readonly what: string
  readonly remedy?: string
}

export const ok = (name: string, what: string): Finding => ({ level: 'ok', name, what })

export const warn = (name: string, what: string, remedy: string): Finding => ({
  level: 'warn',
  name,
  what,
  remedy,
})

export const fail = (name: string, what: string, remedy: string): Finding => ({
  level: 'fail',
  name,
  what,
  remedy,
})

/** The most names in one list of a finding. */
const NAMED_MAX = 5

/** The first names of a list, and how many others there are. */
export function listed(names: readonly string[]): string {
  const others = names.length - NAMED_MAX
  return `${names.slice(0, NAMED_MAX).join(', ')}${others > 0 ? ` and ${others} more` : ''}`
}

/** What breaks a line, and what makes text read in another order. */
const BREAKING = /[\p{Cc}\u2028\u2029\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]+/gu

/** Red, yellow and green, as ECMA-48 numbers them. */
const COLORS: Readonly<Record<Finding['level'], number>> = { fail: 31, warn: 33, ok: 32 }

/** How to let the sidecar review tokens. */
export const ALLOW_REVIEWS =
  "Let the sidecar's ServiceAccount create tokenreviews.authentication.k8s.io, as the shipped ClusterRole does."

/** The finding as one line: text of other programs must not break it or control the terminal. */
export function describeFinding({ level, name, what, remedy }: Finding, isColored = false): string {
  const text = remedy === undefined ? what : `${what.replace(/\.$/, '')}. ${remedy}`
  const mark = isColored ? `\u001B[${COLORS[level]}m[${level}]\u001B[0m` : `[${level}]`
  return `${mark} ${`${name}: ${text}`.replace(BREAKING, ' ')}`
}

/** How to fix a request that failed; `refusal` is the remedy if the API server refused it. */
export function remedyFor(error: unknown, refusal: string): string {
  if (error instanceof Fault && error.code === 'own_credential_refused') return refusal
  const code = codeOf(error)
  if (/CERT|ISSUER|SIGN|SSL|TLS/.test(code)) {
    return 'Check that kubernetes.caFile holds the CA of this API server.'
  }
  if (/^(ENOTFOUND|EAI_)/.test(code)) {
    return 'Check the host in kubernetes.apiServer, and the DNS of this pod.'
  }
  return 'Check kubernetes.apiServer, and that the network lets this pod reach it.'
}

/** The code of the innermost error that has one. */
function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return ''
  const own = 'code' in error ? String(error.code) : ''
  return codeOf(error.cause) || own
}
