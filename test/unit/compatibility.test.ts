/** The compatibility page: each run of the suite writes what it saw, and nothing else. */

import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'tap'
import { refreshOverview, rewritePage, type CompatibilityRun } from '../openclaw/compatibility.ts'
import { FEATURES, type TestResult } from '../openclaw/features.ts'

const SUITE = new URL('../openclaw/', import.meta.url)
const PAGE = readFileSync(new URL('../../docs/compatibility.md', import.meta.url), 'utf8')
const EMPTY = '# Page\n\n<!-- begin overview -->\n<!-- end overview -->\n\n## Runs\n'

const feature = (name: string) => {
  const found = FEATURES.find((each) => each.name === name)
  if (found === undefined) throw new Error(`there is no feature ${name}`)
  return found.tests.map((each) => (typeof each === 'string' ? each : each.test))
}
const testsOf = (name: string, outcome: TestResult['outcome']): readonly TestResult[] =>
  feature(name).map((each) => ({ name: each, outcome }))

const runOf = (gateway: string, changes: Partial<CompatibilityRun> = {}): CompatibilityRun => ({
  gateway,
  node: '2026.9.6',
  mode: 'token',
  date: '2026-11-28',
  results: [{ name: 'anything', outcome: 'passed' }],
  ...changes,
})
const sectionOf = (page: string, run: CompatibilityRun): string => {
  const key = `run ${run.gateway} ${run.node} ${run.mode} -->`
  const [, text = ''] = page.split(`<!-- begin ${key}`)
  return text.split(`<!-- end ${key}`)[0] ?? ''
}
const overviewOf = (page: string): readonly string[] =>
  (page.split('<!-- end overview -->')[0] ?? '')
    .split('\n')
    .filter((line) => line.startsWith('| 2'))

const results = (...lists: readonly (readonly TestResult[])[]): readonly TestResult[] =>
  lists.flat()

test('a run writes its own section and leaves every other as it was', async (t) => {
  const [older, newer] = [runOf('2026.7.35'), runOf('2026.9.6')]
  const trusted = runOf('2026.7.35', { mode: 'trusted-proxy' })
  const page = [older, newer, trusted].reduce(rewritePage, EMPTY)
  const again = runOf('2026.7.35', {
    date: '2026-12-01',
    results: [{ name: 'anything', outcome: 'failed' }],
  })
  const rewritten = rewritePage(page, again)
  for (const untouched of [newer, trusted]) {
    t.equal(sectionOf(rewritten, untouched), sectionOf(page, untouched))
    t.match(sectionOf(page, untouched), /1 passed, 0 failed/)
  }
  t.match(sectionOf(rewritten, again), /^2026-12-01: 0 passed, 1 failed\.$/m)
  t.notMatch(sectionOf(rewritten, again), /2026-11-28/)
  t.equal(rewritten.match(/<!-- begin run /g)?.length, 3)
  const kept = (lines: readonly string[]) => lines.filter((line) => !line.includes('12-01'))
  t.strictSame(
    kept(overviewOf(rewritten)),
    overviewOf(page).filter((line) => !line.startsWith('| 2026.7.35 | 2026.9.6 | token |')),
  )
})

test('the same run twice changes nothing', async (t) => {
  const page = rewritePage(EMPTY, runOf('2026.9.6'))
  t.equal(rewritePage(page, runOf('2026.9.6')), page)
})

test('what stands before the sections stays', async (t) => {
  const page = rewritePage(EMPTY, runOf('2026.9.6'))
  t.ok(page.startsWith('# Page\n'))
  t.ok(page.includes('\n## Runs\n'))
  t.throws(() => rewritePage('# Page\n', runOf('2026.9.6')), /has no <!-- begin overview -->/)
})

test('the newest gateway is first, by number', async (t) => {
  const versions = ['2026.9.6', '2026.10.1', '2026.7.1-2', '2026.7.35']
  const page = versions.map((version) => runOf(version)).reduce(rewritePage, EMPTY)
  t.strictSame(
    overviewOf(page).map((line) => line.split(' | ')[0]),
    ['| 2026.10.1', '| 2026.9.6', '| 2026.7.35', '| 2026.7.1-2'],
  )
})

test('a feature is what its tests say, and a failure outweighs the rest', async (t) => {
  const verdictOf = (...outcomes: readonly TestResult['outcome'][]): string | undefined => {
    const names = feature('revocation')
    const seen = outcomes.map((outcome, at) => ({ name: names[at] ?? '', outcome }))
    const page = rewritePage(EMPTY, runOf('2026.9.6', { results: seen }))
    return /^\| revocation \| (.+?) \|/m.exec(page)?.[1]
  }
  t.equal(verdictOf('passed', 'passed'), 'yes')
  t.equal(verdictOf('passed', 'absent'), 'yes')
  t.equal(verdictOf('passed', 'failed'), '**fails**')
  t.equal(verdictOf('absent', 'failed'), '**fails**')
  t.equal(verdictOf('absent'), 'not in it')
  t.equal(verdictOf('skipped'), '–')
  t.equal(verdictOf(), '–')
})

test('the way of enrolment is the one whose test passed', async (t) => {
  const names = feature('enrolment')
  const passing = (pattern: RegExp) =>
    names.map((name) => ({ name, outcome: pattern.test(name) ? 'passed' : 'absent' }) as const)
  for (const [pattern, word] of [
    [/bootstrap token/, 'bootstrap token'],
    [/approval of/, 'approval'],
  ] as const) {
    const page = rewritePage(EMPTY, runOf('2026.9.6', { results: passing(pattern) }))
    t.match(page, `| enrolment | ${word} | 1 of 1 |`)
  }
})

test('what failed and what a version lacks is listed by name, the latter with its reason', async (t) => {
  const page = rewritePage(
    EMPTY,
    runOf('2026.9.6', {
      results: results(testsOf('wider surface', 'failed'), [
        { name: 'a test of "it"', outcome: 'absent', reason: 'it has none' },
      ]),
    }),
  )
  t.match(page, `Failed:\n\n- "${feature('wider surface')[0]}"`)
  t.match(page, `Not in this version:\n\n- "a test of 'it'": it has none`)
  t.match(page, /0 passed, 1 failed, 1 not in this version\./)
})

test('every test that a feature names is one of the suite', async (t) => {
  // The names with a number in them are made from constants.
  const sources = readdirSync(SUITE)
    .filter((name) => name.endsWith('.ts') && name !== 'features.ts')
    .map((name) => readFileSync(new URL(name, SUITE), 'utf8'))
    .join('\n')
  const isThere = (name: string) => spellings(name).some((text) => sources.includes(text))
  const spellings = (name: string): readonly string[] => {
    const [, value = '', rest = ''] = /^(\d+)( .+)$/.exec(name) ?? []
    const constants = [...sources.matchAll(new RegExp(`const ([A-Z_]+) = ${value}\n`, 'g'))]
    return [`'${name}'`, ...constants.map(([, constant = '']) => `\`\${${constant}}${rest}\``)]
  }
  const named = FEATURES.flatMap(({ name }) => feature(name))
  t.strictSame(
    named.filter((name) => !isThere(name)),
    [],
  )
  t.ok(named.length > 10)
})

test('the overview of the page is made of its sections', async (t) => {
  t.equal(refreshOverview(PAGE), PAGE)
  t.equal(overviewOf(PAGE).length, PAGE.match(/<!-- begin run /g)?.length ?? 0)
})
