/** The tables of the README that are read off the code; run as a program it writes them in place. */

import { readFile, writeFile } from 'node:fs/promises'
import { CODES } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { jsonSchema } from '@openclaw-k8s/auth-sidecar/config/schema.ts'
import { createMetrics } from '@openclaw-k8s/auth-sidecar/observe/metrics.ts'

type SchemaNode = {
  readonly description?: string
  readonly properties?: Readonly<Record<string, SchemaNode>>
  readonly items?: SchemaNode
}

const README = new URL('../../README.md', import.meta.url)

const row = (...cells: readonly string[]): string =>
  `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`

const table = (head: readonly string[], rows: readonly string[]): string =>
  [row(...head), `|${'---|'.repeat(head.length)}`, ...rows].join('\n')

/** Every option that takes a value; the sections around them are no options. */
function* listOptions(node: SchemaNode, path: string): Generator<[path: string, text: string]> {
  const children = Object.entries(node.properties ?? node.items?.properties ?? {})
  if (children.length === 0 || node.items !== undefined) yield [path, node.description ?? '']
  const prefix = path === '' ? '' : `${path}${node.items === undefined ? '' : '[]'}.`
  for (const [key, child] of children) yield* listOptions(child, `${prefix}${key}`)
}

const options = (): string =>
  table(
    ['option', 'what it is'],
    [...listOptions(jsonSchema() as SchemaNode, '')].map(([path, text]) =>
      row(`\`${path}\``, text),
    ),
  )

const codes = (): string =>
  table(
    ['code', 'kind', 'HTTP', 'close', 'what the worker is told'],
    Object.entries(CODES).map(([code, { kind, status, close, message }]) =>
      row(`\`${code}\``, kind, String(status), String(close), message),
    ),
  )

/** The names without a scrape, so that nothing has to be running. */
export const listMetrics = () => {
  const sources = () => {
    throw new Error('nothing is scraped here')
  }
  const { register } = createMetrics({ sources, version: '', namespaces: [] })
  return register
    .getMetricsAsArray()
    .filter(({ name }) => name.startsWith('openclaw_k8s_'))
    .map((metric) => ({
      name: metric.name,
      help: metric.help,
      labels: (metric as { readonly labelNames?: readonly string[] }).labelNames ?? [],
    }))
    .sort((one, other) => one.name.localeCompare(other.name))
}

const metrics = (): string =>
  table(
    ['metric', 'labels', 'what it says'],
    listMetrics().map(({ name, labels, help }) => row(`\`${name}\``, labels.join(', '), help)),
  )

const TABLES = { options, codes, metrics }

/** The README with each table between its markers as the code has it now. */
export const fillTables = (readme: string): string => {
  let text = readme
  for (const [name, render] of Object.entries(TABLES)) {
    const [start, end] = [`<!-- ${name}: generated -->`, `<!-- /${name} -->`]
    const [before, rest] = text.split(start)
    const after = rest?.split(end)[1]
    if (after === undefined) throw new Error(`the README has no place for the ${name}`)
    text = `${before}${start}\n${render()}\n${end}${after}`
  }
  return text
}

if (import.meta.main) await writeFile(README, fillTables(await readFile(README, 'utf8')))
