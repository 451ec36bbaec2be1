/** The compatibility page: a marked section for each run of the suite, and an overview made of them. */

import { FEATURES, type TestResult } from './features.ts'

/** One whole run: the versions that met, and what each test said. */
export type CompatibilityRun = {
  readonly gateway: string
  readonly node: string
  readonly mode: string
  /** Of the run, as `2026-11-28`. */
  readonly date: string
  readonly results: readonly TestResult[]
}

type Section = { readonly key: string; readonly text: string }
type Feature = (typeof FEATURES)[number]

const FAILED = '**fails**'
const ABSENT = 'not in it'
const UNTESTED = '–'
const OVERVIEW = { begin: '<!-- begin overview -->', end: '<!-- end overview -->' }
const SECTION = /<!-- begin run (\S+ \S+ \S+) -->\n([^]*?)\n<!-- end run \1 -->/gu

/** The page with this run's section written or replaced. Other sections keep every byte. */
export const rewritePage = (page: string, run: CompatibilityRun): string => {
  const own: Section = { key: keyOf(run), text: renderRun(run) }
  const others = listSections(page).filter(({ key }) => key !== own.key)
  const sections = [...others, own].toSorted((one, other) => compareKeys(one.key, other.key))
  const written = sections.map(({ key, text }) => `${beginOf(key)}\n${text}\n${endOf(key)}`)
  return refreshOverview(`${headOf(page)}${written.join('\n\n')}\n`)
}

/** The page with its overview as its sections have it. */
export const refreshOverview = (page: string): string => {
  const [before, rest] = cut(page, OVERVIEW.begin)
  const [, after] = cut(rest, OVERVIEW.end)
  const overview = renderOverview(listSections(page))
  return `${before}${OVERVIEW.begin}\n\n${overview}\n\n${OVERVIEW.end}${after}`
}

const keyOf = ({ gateway, node, mode }: CompatibilityRun): string => `${gateway} ${node} ${mode}`
const beginOf = (key: string): string => `<!-- begin run ${key} -->`
const endOf = (key: string): string => `<!-- end run ${key} -->`

const listSections = (page: string): readonly Section[] =>
  [...page.matchAll(SECTION)].map(([, key = '', text = '']) => ({ key, text }))

/** Everything before the first section. */
const headOf = (page: string): string => {
  const at = page.search(SECTION)
  return at === -1 ? `${page.trimEnd()}\n\n` : page.slice(0, at)
}

const cut = (text: string, mark: string): readonly [string, string] => {
  const at = text.indexOf(mark)
  if (at === -1) throw new Error(`docs/compatibility.md has no ${mark}`)
  return [text.slice(0, at), text.slice(at + mark.length)]
}

/** Newest gateway first, then newest node, then mode. */
const compareKeys = (one: string, other: string): number => {
  const [oneParts, otherParts] = [one.split(' '), other.split(' ')]
  const [gateway, node] = [0, 1].map((at) =>
    (otherParts[at] ?? '').localeCompare(oneParts[at] ?? '', 'en', { numeric: true }),
  )
  return gateway || node || one.localeCompare(other)
}

const renderRun = (run: CompatibilityRun): string => {
  const { gateway, node, mode, date, results } = run
  const count = (outcome: TestResult['outcome']) =>
    results.filter((result) => result.outcome === outcome).length
  const skipped = count('skipped') === 0 ? '' : `, ${count('skipped')} skipped`
  const absent = count('absent') === 0 ? '' : `, ${count('absent')} not in this version`
  const totals = `${count('passed')} passed, ${count('failed')} failed${skipped}${absent}`
  return [
    `### Gateway ${gateway}, node ${node}, ${mode} mode`,
    `${date}: ${totals}.`,
    table(
      ['feature', 'result', 'tests passed'],
      FEATURES.map((feature) => featureRow(feature, results)),
    ),
    ...list('Failed:', 'failed', results),
    ...list('Not in this version:', 'absent', results),
  ].join('\n\n')
}

const featureRow = (feature: Feature, results: readonly TestResult[]): readonly string[] => {
  const own = resultsOf(feature, results)
  const run = own.filter(({ outcome }) => outcome !== 'absent')
  const passed = own.filter(({ outcome }) => outcome === 'passed')
  const tests = run.length === 0 ? UNTESTED : `${passed.length} of ${run.length}`
  return [feature.name, verdictOf(feature, own), tests]
}

/** A failure outweighs everything; a version lacks a feature only if none of its tests could run. */
const verdictOf = (feature: Feature, own: readonly TestResult[]): string => {
  const has = (outcome: TestResult['outcome']) => own.some((result) => result.outcome === outcome)
  if (has('failed')) return FAILED
  if (has('passed')) return wordsOf(feature, own)
  return has('absent') ? ABSENT : UNTESTED
}

const wordsOf = ({ tests }: Feature, own: readonly TestResult[]): string => {
  const passed = own.filter(({ outcome }) => outcome === 'passed').map(({ name }) => name)
  const said = tests.flatMap((each) =>
    typeof each === 'object' && passed.includes(each.test) ? [each.says] : [],
  )
  return said.length === 0 ? 'yes' : said.join(', ')
}

const resultsOf = ({ tests }: Feature, results: readonly TestResult[]): readonly TestResult[] => {
  const names = tests.map((each) => (typeof each === 'string' ? each : each.test))
  return results.filter(({ name }) => names.includes(name))
}

/** Quoted, since a test's name is not a sentence of the page. */
const list = (
  title: string,
  outcome: TestResult['outcome'],
  results: readonly TestResult[],
): readonly string[] => {
  const listed = results.filter((result) => result.outcome === outcome)
  if (listed.length === 0) return []
  const lines = listed.map(({ name, reason }) => {
    const why = reason === undefined ? '' : `: ${reason}`
    return `- "${name.replaceAll('"', "'")}"${why}`
  })
  return [title, lines.join('\n')]
}

const renderOverview = (sections: readonly Section[]): string => {
  const names = FEATURES.map(({ name }) => name)
  const rows = sections.map(({ key, text }) => {
    const results = new Map(
      [...text.matchAll(/^\| (.+?) \| (.+?) \| .+? \|$/gmu)].map(([, name = '', result = '']) => [
        name,
        result,
      ]),
    )
    const date = /^\d{4}-\d\d-\d\d/mu.exec(text)?.[0] ?? UNTESTED
    return [...key.split(' '), ...names.map((name) => results.get(name) ?? UNTESTED), date]
  })
  return table(['gateway', 'node', 'mode', ...names, 'date'], rows)
}

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
