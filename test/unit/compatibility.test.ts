/** The compatibility page: each run of the suite writes what it saw, and nothing else. */

import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'tap'
import {
  FEATURES as KUBERNETES_FEATURES,
  isMeasured,
  refreshOverview as refreshKubernetes,
  rewritePage as rewriteKubernetes,
  type KubernetesRun,
} from '../cluster/compatibility.ts'
import { refreshOverview, rewritePage, type CompatibilityRun } from '../openclaw/compatibility.ts'
import { FEATURES } from '../openclaw/features.ts'
import type { TestResult } from '../kit/result-page.ts'

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

const MEASURED = 'streams closed p99 215 ms, last 230 ms; callers refused p99 184 ms, last 190 ms'
const kubernetesRun = (version: string, changes: Partial<KubernetesRun> = {}): KubernetesRun => ({
  version,
  date: '2026-11-28',
  results: [{ name: 'frozen', outcome: 'passed' }],
  revocation: MEASURED,
  ...changes,
})
const BOTH = `# Page

<!-- begin overview -->
<!-- end overview -->

## Kubernetes

<!-- begin overview of kubernetes -->
<!-- end overview of kubernetes -->

What differs.

## Runs
`
const overviewOfKubernetes = (page: string): readonly string[] =>
  (page.split('<!-- end overview of kubernetes -->')[0] ?? '')
    .split('\n')
    .filter((line) => line.startsWith('| v1.'))

test('a run on Kubernetes writes its own section and its line, and nothing else', async (t) => {
  t.ok(isMeasured(MEASURED))
  const openclaw = rewritePage(BOTH, runOf('2026.9.6'))
  const page = ['v1.35.4', 'v1.9.1', 'v1.37.2']
    .map((version) => kubernetesRun(version))
    .reduce(rewriteKubernetes, openclaw)
  t.strictSame(
    overviewOfKubernetes(page).map((line) => line.split(' | ')[0]),
    ['| v1.37.2', '| v1.35.4', '| v1.9.1'],
  )
  t.match(overviewOfKubernetes(page)[0], / \| yes \| 215 ms, 184 ms \| 2026-11-28 \|$/)
  t.match(page, '1 passed, 0 failed, 0 skipped.')
  t.match(page, '215 ms to the end of its streams, 184 ms to the first refusal of its token.')
  const tail = (text: string) => text.slice(text.indexOf('\nWhat differs.'))
  t.equal(tail(page), tail(openclaw), 'what follows stays')
  t.equal(rewriteKubernetes(page, kubernetesRun('v1.35.4')), page, 'the same run changes nothing')

  const failed = kubernetesRun('v1.35.4', {
    date: '2026-12-01',
    results: [
      { name: 'frozen', outcome: 'failed' },
      { name: 'another', outcome: 'skipped', reason: 'not here' },
    ],
    revocation: undefined,
  })
  const rewritten = rewriteKubernetes(page, failed)
  t.match(rewritten, '2026-12-01: 0 passed, 1 failed, 1 skipped.')
  t.match(rewritten, `Skipped:\n\n- "another": not here`)
  t.match(overviewOfKubernetes(rewritten)[1], / \| \*\*fails\*\* \| – \| 2026-12-01 \|$/)
  t.equal(rewritten.match(/<!-- begin kubernetes v/g)?.length, 3)
  const again = rewritePage(rewritten, runOf('2026.9.6', { date: '2026-12-02' }))
  t.strictSame(overviewOfKubernetes(again), overviewOfKubernetes(rewritten))
  t.equal(again.match(/<!-- begin kubernetes v/g)?.length, 3, 'the other suite leaves it alone')
})

test('every test of the cluster suite belongs to one feature, or to none by intent', async (t) => {
  const suite = new URL('../cluster/', import.meta.url)
  const tests = readdirSync(suite)
    .filter((name) => name.endsWith('.test.ts'))
    .flatMap((name) => [
      ...readFileSync(new URL(name, suite), 'utf8').matchAll(/^ +test\('(.+?)', async/gm),
    ])
    .map(([, name = '']) => name)
  const named = KUBERNETES_FEATURES.flatMap((each) => each.tests)
  t.strictSame(
    tests.filter((name) => !named.includes(name)),
    ['all this needed no right that the sidecar does not have'],
  )
  t.strictSame(
    named.filter((name) => typeof name !== 'string' || !tests.includes(name)),
    [],
  )
})

test('the overview of Kubernetes is made of its sections', async (t) => {
  t.equal(refreshKubernetes(PAGE), PAGE)
  t.equal(overviewOfKubernetes(PAGE).length, PAGE.match(/<!-- begin kubernetes v/g)?.length ?? 0)
})
