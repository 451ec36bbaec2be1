/** The tables of docs/reference.md that come from the code; run as a program it writes them in place. */

import { readFile, writeFile } from 'node:fs/promises'
import { RELOADED } from '@openclaw-k8s/auth-sidecar/compose/live-config.ts'
import { COMMANDS } from '@openclaw-k8s/auth-sidecar/commands/commands.ts'
import { CODES } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { CONNECT_CODES } from '@openclaw-k8s/auth-sidecar/connect/codes.ts'
import { CONNECT_OPTIONS } from '@openclaw-k8s/auth-sidecar/connect/options.ts'
import { jsonSchema } from '@openclaw-k8s/auth-sidecar/config/schema.ts'
import { createMetrics } from '@openclaw-k8s/auth-sidecar/observe/metrics.ts'

type SchemaNode = {
  readonly description?: string
  readonly properties?: Readonly<Record<string, SchemaNode>>
  readonly items?: SchemaNode
}

const REFERENCE = new URL('../../docs/reference.md', import.meta.url)

const row = (...cells: readonly string[]): string =>
  `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`

const table = (head: readonly string[], rows: readonly string[]): string =>
  [row(...head), `|${'---|'.repeat(head.length)}`, ...rows].join('\n')

/** Every option that takes a value, without the sections around them. */
function* listOptions(node: SchemaNode, path: string): Generator<[path: string, text: string]> {
  const children = Object.entries(node.properties ?? node.items?.properties ?? {})
  if (children.length === 0 || node.items !== undefined) yield [path, node.description ?? '']
  const prefix = path === '' ? '' : `${path}${node.items === undefined ? '' : '[]'}.`
  for (const [key, child] of children) yield* listOptions(child, `${prefix}${key}`)
}

/** A part of an option takes effect with the whole: `allowedIdentities[].namespace` is reloaded too. */
const takesEffect = (path: string): string => {
  const isReloaded = RELOADED.some((name) => /^k8sTrust\.(\w+)/.exec(path)?.[1] === name)
  return isReloaded ? 'at once' : 'restart'
}

const options = (): string =>
  table(
    ['option', 'what it is', 'takes effect'],
    [...listOptions(jsonSchema() as SchemaNode, '')].map(([path, text]) =>
      row(`\`${path}\``, text, takesEffect(path)),
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

const connectOptions = (): string =>
  table(
    ['option', 'what it is', 'default'],
    Object.entries(CONNECT_OPTIONS).map(([name, option]) => {
      const value = 'value' in option ? ` ${option.value}` : ''
      const fallback = 'default' in option ? `\`${option.default}\`` : ''
      return row(`\`--${name}${value}\``, option.description, fallback)
    }),
  )

const connectCodes = (): string =>
  table(
    ['code', 'HTTP', 'what the worker is told'],
    Object.entries(CONNECT_CODES).map(([code, { status, message }]) =>
      row(`\`${code}\``, String(status), message),
    ),
  )

const commands = (): string =>
  table(
    ['command', 'what it does', 'exits'],
    Object.entries(COMMANDS).map(([name, { summary, exits }]) => {
      const others = Object.entries(exits).map(([code, meaning]) => `${code} ${meaning}`)
      return row(`\`${name}\``, summary, ['0', '64', ...others].join('; '))
    }),
  )

const TABLES = {
  commands,
  options,
  codes,
  metrics,
  'connect options': connectOptions,
  'connect codes': connectCodes,
}

/** The page with each table between its markers as the code has it now. */
export const fillTables = (page: string): string => {
  let text = page
  for (const [name, render] of Object.entries(TABLES)) {
    const [start, end] = [`<!-- ${name}: generated -->`, `<!-- /${name} -->`]
    const [before, rest] = text.split(start)
    const after = rest?.split(end)[1]
    if (after === undefined) throw new Error(`docs/reference.md has no place for the ${name}`)
    text = `${before}${start}\n${render()}\n${end}${after}`
  }
  return text
}

if (import.meta.main) await writeFile(REFERENCE, fillTables(await readFile(REFERENCE, 'utf8')))
