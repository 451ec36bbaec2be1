/** What is wrong with a configuration file, in words for its author. */

import type * as z from 'zod'
import { nearest } from './nearest.ts'
import { knownKeys, OPTION_PATHS } from './options.ts'

export type Path = readonly (string | number)[]

/** A problem in the merged tree, before its source is known. */
export type Finding = {
  readonly path: Path
  readonly at: 'key' | 'value'
  readonly reason: string
  readonly hint?: string | undefined
}

const KEY_LENGTH_MAX = 64

/** Texts for zod's issues; a schema's own error text takes precedence. */
export function explainIssue(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.code === 'invalid_type') {
    return issue.input === undefined
      ? 'The option is missing.'
      : `Expected ${nameType(String(issue.expected))}, got ${typeOf(issue.input)}.`
  }
  if (issue.code === 'invalid_value') return `Expected one of: ${issue.values.join(', ')}.`
  if (issue.code === 'too_small') return explainTooSmall(issue.origin, String(issue.minimum))
  if (issue.code === 'too_big') return explainTooBig(issue.origin, String(issue.maximum))
  return undefined
}

function explainTooSmall(origin: string, minimum: string): string {
  if (origin === 'array') return 'The list must not be empty.'
  return origin === 'string' ? 'The text is empty.' : `The value is below ${minimum}.`
}

function explainTooBig(origin: string, maximum: string): string {
  if (origin === 'array') return `The list has more than ${maximum} items.`
  if (origin === 'string') return `The text is longer than ${maximum} characters.`
  return `The value is above ${maximum}.`
}

/** One zod issue as findings: one for each unknown key, otherwise one. */
export function findingsOf(issue: z.core.$ZodIssue): readonly Finding[] {
  const path = toPath(issue.path)
  if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => unknownKey(path, key))
  return [{ path, at: 'value', reason: issue.message, hint: hintOf(issue) }]
}

/** `k8sTrust.allowedIdentities[0].namespace`, with unknown keys made safe to print. */
export function formatPath(path: Path): string {
  let text = ''
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`
    else text += text === '' ? printable(part) : `.${printable(part)}`
  }
  return text
}

/** External text, shortened and made safe for a terminal. */
export function printable(text: string): string {
  const safe = text.replace(/[^ -~]/g, '?')
  return safe.length > KEY_LENGTH_MAX ? `${safe.slice(0, KEY_LENGTH_MAX)}…` : safe
}

const toPath = (path: readonly PropertyKey[]): Path =>
  path.map((part) => (typeof part === 'number' ? part : String(part)))

function unknownKey(parent: Path, key: string): Finding {
  const hint = SECRET_HINTS.get([...parent, key].join('.')) ?? suggestKey(parent, key)
  return { path: [...parent, key], at: 'key', reason: 'This option does not exist.', hint }
}

const SECRET_HINTS = new Map(
  ['token', 'password'].map((key) => [
    `gateway.auth.${key}`,
    'Do not put secrets here: write it to a file and set gateway.auth.secretFile to its path.',
  ]),
)

function suggestKey(parent: Path, key: string): string | undefined {
  const sibling = nearest(key, knownKeys(parent))
  if (sibling !== undefined) return `Did you mean ${sibling}?`
  const elsewhere = OPTION_PATHS.find((path) => path.split('.').at(-1) === key)
  return elsewhere === undefined ? undefined : `Did you mean ${elsewhere}?`
}

function hintOf(issue: z.core.$ZodIssue): string | undefined {
  if (issue.code === 'too_small' && issue.origin === 'array') return 'Add at least one item.'
  // A schema's own text says itself how the value is written.
  if (issue.code === 'invalid_type' && issue.message.startsWith('Expected ')) {
    return TYPE_HINTS.get(issue.expected)
  }
  if (issue.code === 'invalid_value') {
    const { input } = issue
    const near = typeof input === 'string' ? nearest(input, issue.values.map(String)) : undefined
    return near === undefined ? undefined : `Did you mean ${near}?`
  }
  const hint = issue.code === 'custom' ? issue.params?.['hint'] : undefined
  return typeof hint === 'string' ? hint : undefined
}

const TYPE_HINTS = new Map<string, string>([
  ['boolean', 'Write true or false, without quotes.'],
  ['number', 'Write a number, without quotes.'],
  ['int', 'Write a whole number, without quotes.'],
  ['string', 'Write it in quotes.'],
  ['array', 'Write a list, such as [a, b].'],
  ['object', 'Write its options below it, indented.'],
])

const nameType = (type: string): string => (type === 'int' ? 'a whole number' : withArticle(type))

function typeOf(value: unknown): string {
  if (value === null) return 'nothing'
  if (typeof value === 'number' && !Number.isInteger(value)) return 'a number with a fraction'
  return withArticle(Array.isArray(value) ? 'array' : typeof value)
}

function withArticle(type: string): string {
  const name = { string: 'text', array: 'a list', object: 'a section' }[type]
  return name ?? `a ${type}`
}
