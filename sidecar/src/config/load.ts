/** Loads the configuration: the environment overrides the file, and flags override both. */

import { parseText } from './document.ts'
import type { Located } from './document.ts'
import { readProblem } from './files.ts'
import type { ReadFile } from './files.ts'
import { rewriteOriginal } from './nested-form.ts'
import type { Rewritten } from './nested-form.ts'
import { applyOverrides, fromEnvironment, fromFlags, isTree } from './overrides.ts'
import type { Environment, Override } from './overrides.ts'
import { ConfigError, type Problem } from './config-error.ts'
import { explainIssue, findingsOf, formatPath } from './problems.ts'
import type { Finding, Path } from './problems.ts'
import { configSchema } from './schema.ts'
import type { Config } from './schema.ts'

export type LoadOptions = {
  /** The file's name. */
  readonly file?: string | undefined
  /** Read if no `file` is named. It may be absent: then only environment and flags count. */
  readonly defaultFile?: string
  readonly env: Environment
  /** `path=value`, as given to `--set`; the last one wins. */
  readonly flags: readonly string[]
  readonly readFile: ReadFile
}
export type Loaded = {
  readonly config: Config
  /** The file it came from; `undefined` if there was none. */
  readonly file: string | undefined
  readonly warnings: readonly string[]
  /** The paths of all options that were set explicitly. */
  readonly explicitPaths: ReadonlySet<string>
}

/** The role of OpenClaw's nodes. */
const NODE_ROLE = 'node'

/** The sources of the configuration, so that a problem can be located. */
type Layers = {
  readonly document: Located | undefined
  readonly rewritten: Rewritten | undefined
  readonly overrides: readonly Override[]
}

/** Throws a `ConfigError` that names everything wrong at once. */
export function loadConfig(options: LoadOptions): Loaded {
  const document = readDocument(options)
  const absent = document === undefined ? explainAbsence(options) : []
  const rewritten = rewriteOriginal(document?.value)
  const fromEnv = fromEnvironment(options.env)
  const fromSet = fromFlags(options.flags)
  const overrides = [...fromEnv.overrides, ...fromSet.overrides]
  const found = [...fromEnv.problems, ...fromSet.problems]
  // What a configuration of nothing lacks would hide that nothing was read.
  if (absent.length > 0 && overrides.length + found.length === 0) throw new ConfigError(absent)
  const layers: Layers = { document, rewritten, overrides }

  const tree = mergeLayers(layers)
  const parsed = configSchema.safeParse(tree, { error: explainIssue, reportInput: true })

  found.push(
    ...placeFindings(parsed.success ? [] : parsed.error.issues.flatMap(findingsOf), layers),
  )
  if (!parsed.success || found.length > 0) throw new ConfigError([...absent, ...found])
  return {
    config: parsed.data,
    file: document === undefined ? undefined : (options.file ?? options.defaultFile),
    warnings: [
      ...originalWarnings(layers),
      ...openDoorWarnings(parsed.data),
      ...roleWarnings(parsed.data),
    ],
    explicitPaths: new Set(leafPaths(tree, [])),
  }
}

/**
 * Returns a function that loads the configuration again. A file that was read before must still be
 * there, also the default one: without it the defaults could allow more than it did.
 */
export function createReloader(options: LoadOptions, { file }: Loaded): () => Loaded {
  let known = file
  return () => {
    const loaded = loadConfig(known === undefined ? options : { ...options, file: known })
    known = loaded.file
    return loaded
  }
}

function readDocument({ file = '', defaultFile = '', readFile }: LoadOptions) {
  const name = file === '' ? defaultFile : file
  if (name === '') return undefined
  let text: string
  try {
    text = readFile(name)
  } catch (error) {
    if (file === '' && isAbsent(error)) return undefined
    const hint = 'Name a readable file with --config FILE.'
    throw new ConfigError([{ path: '', where: name, reason: readProblem(error), hint }])
  }
  const parsed = parseText(text, name)
  if (!parsed.ok) throw new ConfigError(parsed.problems)
  return parsed.document
}

const isAbsent = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === 'ENOENT'

/** Why no file was read; nothing where none was looked for. */
const explainAbsence = ({ defaultFile }: LoadOptions): readonly Problem[] =>
  defaultFile === undefined
    ? []
    : [
        {
          path: '',
          where: defaultFile,
          reason: 'No --config was given, and this file does not exist.',
          hint: 'Name the configuration with --config FILE.',
        },
      ]

/** Keeps one problem for each option: the first one says what to fix. */
function placeFindings(findings: readonly Finding[], layers: Layers): readonly Problem[] {
  const placed = [
    ...(layers.rewritten?.findings ?? []).map((finding) => place(finding, layers)),
    ...findings.map((finding) => settle(finding, layers)),
  ]
  const seen = new Map<string, Problem>()
  for (const problem of placed) {
    if (!seen.has(problem.path)) seen.set(problem.path, problem)
  }
  return [...seen.values()]
}

/** Locates a finding in the merged tree: in an override if one set it, otherwise in the file. */
function settle(finding: Finding, layers: Layers): Problem {
  const override = layers.overrides.findLast(({ path }) =>
    path.every((part, index) => finding.path[index] === part),
  )
  if (override !== undefined) return problemAt(finding, finding.path, override.where)
  const path = layers.rewritten?.origin(finding.path) ?? finding.path
  return place({ ...finding, path }, layers)
}

/** Locates a finding in the document as it was written. */
const place = (finding: Finding, { document }: Layers): Problem =>
  problemAt(finding, finding.path, document?.locate(finding.path, finding.at))

const problemAt = (finding: Finding, path: Path, where: string | undefined): Problem => ({
  path: formatPath(path),
  ...(where === undefined ? {} : { where }),
  reason: finding.reason,
  ...(finding.hint === undefined ? {} : { hint: finding.hint }),
})

function mergeLayers({ document, rewritten, overrides }: Layers): unknown {
  return applyOverrides(rewritten?.value ?? document?.value ?? {}, overrides)
}

function leafPaths(tree: unknown, path: readonly string[]): readonly string[] {
  if (!isTree(tree)) return [path.join('.')]
  return Object.entries(tree).flatMap(([key, value]) => leafPaths(value, [...path, key]))
}

const originalWarnings = ({ rewritten, document }: Layers): readonly string[] =>
  (rewritten?.warnings ?? []).map(
    ({ path, text }) => `${formatPath(path)} (${document?.locate(path, 'value')}): ${text}`,
  )

function openDoorWarnings({ k8sTrust }: Config): readonly string[] {
  return k8sTrust.allowedIdentities.flatMap(({ namespace, serviceAccount }, index) =>
    /^\*+$/.test(namespace) && /^[*.]+$/.test(serviceAccount)
      ? [
          `k8sTrust.allowedIdentities[${index}]: Every pod of the cluster is admitted. Name the namespace and the ServiceAccount of the workers.`,
        ]
      : [],
  )
}

/** OpenClaw's protocol admits a worker as a node, or not at all. */
function roleWarnings({ gateway, k8sTrust }: Config): readonly string[] {
  if (gateway.protocol !== 'openclaw') return []
  return k8sTrust.allowedIdentities.flatMap(({ allowedRoles }, index) => {
    const others = allowedRoles.filter((role) => role !== NODE_ROLE)
    if (others.length === 0) return []
    const effect = allowedRoles.includes(NODE_ROLE)
      ? 'The other roles have no effect.'
      : 'Every worker of this entry is refused with role_not_allowed.'
    const path = `k8sTrust.allowedIdentities[${index}].allowedRoles`
    return [
      `${path}: With gateway.protocol openclaw a worker can only be a ${NODE_ROLE}, and this lists ${others.join(', ')}. ${effect} Write [${NODE_ROLE}], or set gateway.protocol to stream.`,
    ]
  })
}
