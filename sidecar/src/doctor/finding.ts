/** What an examination finds: one line for each thing it looked at, with the way to mend it. */

import type { Clock } from '../lib/clock.ts'
import type { ReadFile } from '../config/files.ts'
import type { Loaded } from '../config/load.ts'

/** The sidecar's configuration, and its surroundings as they look from inside its container. */
export type Patient = Loaded & {
  readonly env: NodeJS.ProcessEnv
  readonly readFile: ReadFile
  readonly clock: Clock
}

export type Finding = {
  readonly level: 'ok' | 'warn' | 'fail'
  /** The thing that was looked at. */
  readonly name: string
  /** What was seen. */
  readonly what: string
  readonly mend?: string
}

export const ok = (name: string, what: string): Finding => ({ level: 'ok', name, what })

export const warn = (name: string, what: string, mend: string): Finding => ({
  level: 'warn',
  name,
  what,
  mend,
})

export const fail = (name: string, what: string, mend: string): Finding => ({
  level: 'fail',
  name,
  what,
  mend,
})

const BREAKING = /[\p{Cc}\u2028\u2029]+/gu

/** The finding in one line: text of other programs must not break it, nor reach into the terminal. */
export function describeFinding({ level, name, what, mend }: Finding): string {
  const text = mend === undefined ? what : `${what.replace(/\.$/, '')}. ${mend}`
  return `[${level}] ${name}: ${text}`.replace(BREAKING, ' ')
}
