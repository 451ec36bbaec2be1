/** The list of all options, taken from the schema: their paths and environment variables. */

import { jsonSchema } from './schema.ts'

export type Option = {
  readonly path: readonly string[]
  readonly variable: string
  /** Whether the option takes plain text, so that its variable need not be valid YAML. */
  readonly isText: boolean
}

type SchemaNode = {
  readonly type?: string
  readonly properties?: Readonly<Record<string, SchemaNode>>
  readonly items?: SchemaNode
}

export const VARIABLE_PREFIX = 'AUTH_SIDECAR_'

const root = jsonSchema() as SchemaNode

/** Every section and option outside lists, sections before what they hold. */
const OPTIONS: readonly Option[] = [...walk(root, [])]

const byPath = new Map(OPTIONS.map((option) => [option.path.join('.'), option]))
const byVariable = new Map(OPTIONS.map((option) => [option.variable, option]))

export const OPTION_PATHS: readonly string[] = [...byPath.keys()]
export const VARIABLES: readonly string[] = [...byVariable.keys()]

export const optionAt = (path: string): Option | undefined => byPath.get(path)
export const optionOf = (variable: string): Option | undefined => byVariable.get(variable)

/** The keys the schema knows under a path; a number stands for an item of a list. */
export function knownKeys(path: readonly (string | number)[]): readonly string[] {
  let node: SchemaNode | undefined = root
  for (const part of path) {
    node = typeof part === 'number' ? node?.items : node?.properties?.[part]
  }
  return Object.keys(node?.properties ?? {})
}

function* walk(node: SchemaNode, parent: readonly string[]): Generator<Option> {
  for (const [key, child] of Object.entries(node.properties ?? {})) {
    const path = [...parent, key]
    yield { path, variable: variableOf(path), isText: child.type === 'string' }
    yield* walk(child, path)
  }
}

function variableOf(path: readonly string[]): string {
  const words = path.map((key) => key.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase())
  return VARIABLE_PREFIX + words.join('_')
}
