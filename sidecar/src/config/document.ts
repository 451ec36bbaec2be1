/** YAML and JSON text as a tree that knows the position of every value. */

import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from 'yaml'
import type { Document, Node, Pair, YAMLError } from 'yaml'
import type { Problem } from './config-error.ts'
import type { Path } from './problems.ts'

export type Located = {
  readonly value: unknown
  /** `name:line:column` of the value at a path, or of the nearest parent that exists. */
  readonly locate: (path: Path, at: 'key' | 'value') => string
}
export type ParsedText =
  | { readonly ok: true; readonly document: Located }
  | {
      readonly ok: false
      readonly problems: readonly Problem[]
      /** What could be read all the same; its values may not be what the author meant. */
      readonly partial?: unknown
    }

const TEXT_LENGTH_MAX = 1_048_576
const SYNTAX_PROBLEMS_MAX = 10
/** Enough to share a list between sections; far too few for a "billion laughs". */
const ALIASES_MAX = 32

/** Reads one YAML 1.2 document. JSON is a subset of it. */
export function parseText(text: string, name: string): ParsedText {
  if (text.length > TEXT_LENGTH_MAX) {
    return failed({ path: '', where: name, reason: 'The document is larger than 1 MiB.' })
  }
  const lines = new LineCounter()
  const document = parseDocument(text, {
    version: '1.2',
    schema: 'core',
    uniqueKeys: true,
    strict: true,
    // Pretty errors quote the source, which could contain a secret.
    prettyErrors: false,
    lineCounter: lines,
    logLevel: 'error',
  })
  const place = (offset: number) => {
    const { line, col } = lines.linePos(offset)
    return `${name}:${Math.max(line, 1)}:${Math.max(col, 1)}`
  }
  const faults = [...document.errors, ...document.warnings].slice(0, SYNTAX_PROBLEMS_MAX)
  if (faults.length > 0) {
    const problems = faults.map((fault) => syntaxProblem(fault, place(fault.pos[0])))
    return { ok: false, problems, partial: partOf(document) }
  }
  try {
    const value: unknown = document.toJS({ maxAliasCount: ALIASES_MAX })
    const locate = (path: Path, at: 'key' | 'value') => place(offsetOf(document, path, at))
    return { ok: true, document: { value, locate } }
  } catch (error) {
    // The only thing toJS refuses in a document without errors is its number of aliases.
    if (!(error instanceof ReferenceError)) throw error
    return failed({ path: '', where: name, reason: 'The document has too many aliases.' })
  }
}

function partOf(document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: ALIASES_MAX })
  } catch {
    return undefined
  }
}

const failed = (...problems: readonly Problem[]): ParsedText => ({ ok: false, problems })

function syntaxProblem(fault: YAMLError, where: string): Problem {
  const reason = SYNTAX_REASONS.get(fault.code) ?? `This is not valid YAML: ${fault.message}.`
  const hint = SYNTAX_HINTS.get(fault.code)
  return { path: '', where, reason, ...(hint === undefined ? {} : { hint }) }
}

const SYNTAX_REASONS = new Map<string, string>([
  ['DUPLICATE_KEY', 'This key is used twice.'],
  ['MULTIPLE_DOCS', 'There is more than one document; only one is allowed.'],
  ['RESOURCE_EXHAUSTION', 'The document is nested too deeply.'],
])

const SYNTAX_HINTS = new Map<string, string>([
  ['TAB_AS_INDENT', 'Indent with spaces.'],
  ['BAD_INDENT', 'Begin all options of a section in the same column.'],
  ['DUPLICATE_KEY', 'Keep one of the two.'],
  ['MULTIPLE_DOCS', 'Keep one, and remove the --- between them.'],
])

function offsetOf(document: Document, path: Path, at: 'key' | 'value'): number {
  let node: unknown = document.contents
  let offset = 0
  for (const [index, part] of path.entries()) {
    const child = childOf(isAlias(node) ? node.resolve(document) : node, part)
    if (child === undefined) return offset
    const isLast = index === path.length - 1
    offset = startOf(isLast && at === 'value' ? child.value : child.key) ?? offset
    if (isLast && at === 'value') offset = startOf(child.value) ?? startOf(child.key) ?? offset
    node = child.value
  }
  return offset
}

function childOf(node: unknown, part: string | number): Pick<Pair, 'key' | 'value'> | undefined {
  if (isSeq(node) && typeof part === 'number') {
    const item = node.items[part]
    return item === undefined ? undefined : { key: item, value: item }
  }
  if (!isMap(node)) return undefined
  return node.items.find(({ key }) => isScalar(key) && String(key.value) === part)
}

const startOf = (node: unknown): number | undefined => (node as Node | null)?.range?.[0]
