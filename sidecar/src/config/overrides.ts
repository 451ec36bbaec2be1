/** Options set by environment variables and by `--set` flags. */

import { parseText } from './document.ts'
import { nearest } from './nearest.ts'
import { OPTION_PATHS, optionAt, optionOf, VARIABLE_PREFIX, VARIABLES } from './options.ts'
import type { Option } from './options.ts'
import type { Problem } from './config-error.ts'
import { printable } from './problems.ts'

export type Environment = Readonly<Record<string, string | undefined>>

export type Override = {
  readonly path: readonly string[]
  readonly value: unknown
  /** The variable or flag, as the user knows it. */
  readonly where: string
}
export type Overrides = { readonly overrides: Override[]; readonly problems: Problem[] }

/**
 * Variables that Kubernetes sets in pods of a namespace with a Service named `auth-sidecar` or
 * `auth-sidecar-…`; they are not meant for the sidecar.
 */
const SERVICE_LINK =
  /^AUTH_SIDECAR_(PORT(_.*)?|([A-Z0-9_]+_)?(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?))$/
/** Names under which people look for the configuration file. */
const FOR_THE_FILE = /^AUTH_SIDECAR_CONFIG(URATION)?(_(FILE|PATH))?$/
const SERVICE_LINK_VALUE = /^(tcp|udp|sctp):\/\//

/** Reads every `AUTH_SIDECAR_` variable: sections come before their options. */
export function fromEnvironment(env: Environment): Overrides {
  const result: Overrides = { overrides: [], problems: [] }
  for (const [variable, text] of Object.entries(env)) {
    if (text === undefined || !variable.startsWith(VARIABLE_PREFIX)) continue
    const option = optionOf(variable)
    if (option !== undefined) addOverride(result, option, text, variable)
    else if (!isServiceLink(variable, text)) result.problems.push(unknownVariable(variable))
  }
  result.overrides.sort((one, other) => one.path.length - other.path.length)
  return result
}

/** Reads `path=value` flags, in their order. */
export function fromFlags(flags: readonly string[]): Overrides {
  const result: Overrides = { overrides: [], problems: [] }
  for (const flag of flags) {
    const split = flag.indexOf('=')
    const path = split === -1 ? flag : flag.slice(0, split)
    const where = `--set ${printable(path)}`
    const option = optionAt(path)
    if (option === undefined) result.problems.push(unknownFlag(path, where))
    else if (split === -1) {
      const hint = `Write --set ${path}=VALUE.`
      result.problems.push({ path, where, reason: 'The flag has no value.', hint })
    } else addOverride(result, option, flag.slice(split + 1), where)
  }
  return result
}

/** The document with the overrides in it; `undefined` is an empty one. */
export const applyOverrides = (document: unknown, overrides: readonly Override[]): unknown =>
  overrides.reduce((tree, { path, value }) => withValue(tree, path, value), document)

/** The paths of overrides come from the schema alone, so no key here can be a prototype's. */
function withValue(tree: unknown, path: readonly string[], value: unknown): unknown {
  const [key, ...rest] = path
  if (key === undefined) return value
  // A value that is not a section is kept, so that the problem is reported at its place.
  if (tree !== null && tree !== undefined && !isTree(tree)) return tree
  const section: Tree = tree ?? {}
  return { ...section, [key]: withValue(section[key], rest, value) }
}

type Tree = Readonly<Record<string, unknown>>

export const isTree = (value: unknown): value is Tree =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function addOverride(result: Overrides, option: Option, text: string, where: string): void {
  const parsed = parseText(text, where)
  if (option.isText) {
    // Plain text such as [::]:18443 is invalid as YAML, but valid as an address.
    const isQuoted = parsed.ok && typeof parsed.document.value === 'string'
    const value = isQuoted ? parsed.document.value : text
    result.overrides.push({ path: option.path, value, where })
  } else if (parsed.ok) {
    result.overrides.push({ path: option.path, value: parsed.document.value, where })
  } else {
    const path = option.path.join('.')
    result.problems.push(...parsed.problems.map((problem) => ({ ...problem, path })))
  }
}

const isServiceLink = (variable: string, text: string): boolean =>
  SERVICE_LINK.test(variable) || (variable.endsWith('_PORT') && SERVICE_LINK_VALUE.test(text))

const unknownVariable = (variable: string): Problem => ({
  path: '',
  where: printable(variable),
  reason: 'This variable does not match any option.',
  ...hintFor(variable),
})

/** What all names begin with must not count as likeness. */
function hintFor(variable: string): { readonly hint?: string } {
  if (FOR_THE_FILE.test(variable)) {
    return { hint: 'The configuration file has no variable: name it with --config FILE.' }
  }
  const bare = (name: string) => name.slice(VARIABLE_PREFIX.length)
  const near = nearest(bare(variable), VARIABLES.map(bare))
  return didYouMean(near && VARIABLE_PREFIX + near)
}

const unknownFlag = (path: string, where: string): Problem => ({
  path: printable(path),
  where,
  reason: 'This option does not exist.',
  ...didYouMean(nearest(path, OPTION_PATHS)),
})

const didYouMean = (name: string | undefined): { readonly hint?: string } =>
  name === undefined ? {} : { hint: `Did you mean ${name}?` }
