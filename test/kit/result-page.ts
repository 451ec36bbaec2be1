/** Pages of results: a marked section for each run of a suite, and an overview made of them. */

export type TestResult = {
  readonly name: string
  /** `absent`: the version does not have what the test needs, for the reason given. */
  readonly outcome: 'passed' | 'failed' | 'skipped' | 'absent'
  readonly reason?: string
}

export type Feature = {
  readonly name: string
  /** The names of its tests; with `says`, what the page shows when that test passed, in place of `yes`. */
  readonly tests: readonly (string | { readonly test: string; readonly says: string })[]
}

export type Section = { readonly key: string; readonly text: string }

/** Which part of a page belongs to a suite. */
export type Place = {
  /** A section stands between `begin MARK KEY` and `end MARK KEY`. */
  readonly mark: string
  /** Its overview stands between `begin OVERVIEW` and `end OVERVIEW`. */
  readonly overview: string
  /** The index of the first section on a page that has none. */
  readonly first: (page: string) => number
  readonly compareKeys: (one: string, other: string) => number
  readonly renderOverview: (sections: readonly Section[]) => string
}

const FAILED = '**fails**'
const ABSENT = 'not in it'
export const UNTESTED = '–'

const beginOf = (name: string): string => `<!-- begin ${name} -->`
const endOf = (name: string): string => `<!-- end ${name} -->`

/** The page with one section written or replaced, and its overview. Other sections keep every byte. */
export const rewriteSection = (page: string, place: Place, own: Section): string => {
  const { mark, compareKeys, first } = place
  const present = listSections(page, mark)
  const others = present.filter(({ key }) => key !== own.key)
  const sections = [...others, own].toSorted((one, other) => compareKeys(one.key, other.key))
  const written = sections
    .map(({ key, text }) => `${beginOf(`${mark} ${key}`)}\n${text}\n${endOf(`${mark} ${key}`)}`)
    .join('\n\n')
  const [begin = first(page), end = begin] = [present[0]?.begin, present.at(-1)?.end]
  const before = present.length > 0 ? page.slice(0, begin) : `${page.slice(0, begin).trimEnd()}\n\n`
  return refreshOverview(`${before}${written}${page.slice(end).trimEnd()}\n`, place)
}

/** What a section says now; empty where the page has none of that key. */
export const readSection = (page: string, { mark }: Pick<Place, 'mark'>, key: string): string =>
  listSections(page, mark).find((section) => section.key === key)?.text ?? ''

/** The page with its overview as its sections have it. */
export const refreshOverview = (page: string, place: Place): string => {
  const { overview, mark, renderOverview } = place
  return replaceMarked(page, overview, renderOverview(listSections(page, mark)))
}

/** The page with other text between `begin NAME` and `end NAME`. */
export const replaceMarked = (page: string, name: string, text: string): string => {
  const [before, rest] = cut(page, beginOf(name))
  const [, after] = cut(rest, endOf(name))
  return `${before}${beginOf(name)}\n\n${text}\n\n${endOf(name)}${after}`
}

const listSections = (page: string, mark: string) =>
  [
    ...page.matchAll(
      new RegExp(
        `<!-- begin ${mark} (\\S+(?: \\S+)*) -->\\n([^]*?)\\n<!-- end ${mark} \\1 -->`,
        'gu',
      ),
    ),
  ].map(({ 0: whole, 1: key = '', 2: text = '', index }) => ({
    key,
    text,
    begin: index,
    end: index + whole.length,
  }))

const cut = (text: string, mark: string): readonly [string, string] => {
  const at = text.indexOf(mark)
  if (at === -1) throw new Error(`the page has no ${mark}`)
  return [text.slice(0, at), text.slice(at + mark.length)]
}

/** Versions by number, the newest first. */
export const compareVersions = (one = '', other = ''): number =>
  other.localeCompare(one, 'en', { numeric: true })

/** How many tests ended so. */
export const countOf = (outcome: TestResult['outcome'], results: readonly TestResult[]): number =>
  results.filter((result) => result.outcome === outcome).length

/** How many tests ended how, in words. */
export const totalsOf = (results: readonly TestResult[]): string => {
  const [absent, skipped] = [countOf('absent', results), countOf('skipped', results)]
  const passed = `${countOf('passed', results)} passed, ${countOf('failed', results)} failed`
  const few = skipped === 0 ? '' : `, ${skipped} skipped`
  return `${passed}${few}${absent === 0 ? '' : `, ${absent} not in this version`}`
}

export const featureTable = (
  features: readonly Feature[],
  results: readonly TestResult[],
): string =>
  table(
    ['feature', 'result', 'tests passed'],
    features.map((feature) => featureRow(feature, results)),
  )

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
export const listOutcomes = (
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

/** What a section says of each feature, in their order. */
export const readFeatures = (features: readonly Feature[], text: string): readonly string[] => {
  const results = new Map(
    [...text.matchAll(/^\| (.+?) \| (.+?) \| .+? \|$/gmu)].map(([, name = '', result = '']) => [
      name,
      result,
    ]),
  )
  return features.map(({ name }) => results.get(name) ?? UNTESTED)
}

/** The date of a section. */
export const readDate = (text: string): string => /^\d{4}-\d\d-\d\d/mu.exec(text)?.[0] ?? UNTESTED

/** Today, as `2026-11-28`. */
export const today = (): string => new Date().toISOString().slice(0, 'yyyy-mm-dd'.length)

export const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
