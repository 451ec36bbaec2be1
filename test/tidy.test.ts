/** The house rules that no other tool checks. */

import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { CODES, type Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { reactionTo } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/refusal.ts'
import {
  listHeadings,
  listQueries,
  namesIn,
  readAlerts,
  readMetrics,
  readRuleTests,
  readRunbook,
  selectorsIn,
} from './kit/observability-files.ts'
import { renderValuesSchema } from './tools/values-schema.ts'
import { fillTables, listMetrics } from './tools/reference-tables.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const CODE_LINES_MAX = 250
/** The formatter keeps code at 100 columns, but does not wrap comments. */
const COMMENT_WIDTH_MAX = 120
/** Text the formatter cannot break: literals, patterns, templates. */
const UNBREAKABLE = /['"`]|\/.*\//

/** Tracked files, and new ones that are not ignored. */
const FILES = execFileSync(
  'git',
  ['ls-files', '-z', '--cached', '--others', '--exclude-standard'],
  {
    cwd: ROOT,
    encoding: 'utf8',
  },
)
  .split('\0')
  .filter((path) => path !== '' && existsSync(join(ROOT, path)))
const SOURCES = FILES.filter((path) =>
  /^(sidecar|gateway-stub|examples|release|test)\/.*\.ts$/.test(path),
)
const SIDECAR = SOURCES.filter((path) => path.startsWith('sidecar/src/'))
const TESTS = SOURCES.filter((path) => path.endsWith('.test.ts') && path !== 'test/tidy.test.ts')

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

test('every code is shown by a test', async (t) => {
  const tests = TESTS.map(read).join('\n')
  const unshown = Object.keys(CODES).filter((code) => !new RegExp(`\\b${code}\\b`).test(tests))
  t.strictSame(unshown, [], 'codes without a test')
})

test("the reference's tables are what the code says", async (t) => {
  // `node test/tools/reference-tables.ts` writes them again.
  const reference = read('docs/reference.md')
  t.equal(reference, fillTables(reference))
})

test("the chart's schema is what its values and the code say", async (t) => {
  // `npm run manifests` writes it again.
  const values = read('charts/openclaw/values.yaml')
  t.equal(read('charts/openclaw/values.schema.json'), renderValuesSchema(values))
})

test('every metric that the documents name exists', async (t) => {
  const known = listMetrics().map(({ name }) => name)
  const documents = FILES.filter((path) => path.endsWith('.md'))
  const named = documents.flatMap((path) => read(path).match(/openclaw_k8s_[a-z_]+/g) ?? [])
  const unknown = named.filter((name) => !known.includes(name.replace(/_(bucket|sum|count)$/, '')))
  t.strictSame(unknown, [])
  t.ok(known.length > 0 && named.length > 0)
})

const RUNBOOK = readRunbook()
const RUNBOOK_URL = 'https://github.com/openclaw-k8s/auth-sidecar/blob/main/docs/runbook.md'
const ALERTS = readAlerts()

test('the runbook has one heading for each code and each alert, and for no other', async (t) => {
  const headings = RUNBOOK.flatMap(({ text }) => /^`(.+)`$/.exec(text)?.[1] ?? [])
  const expected = [...Object.keys(CODES), ...ALERTS.map(({ alert }) => alert)]
  t.strictSame(headings.sort(), expected.sort())
})

test('the runbook says of each code what the code says', async (t) => {
  const does = {
    exit: 'exits',
    retry: 'retries',
    bare: 'retries',
    negotiate: 'tries another protocol, or pauses',
  }
  for (const [code, { kind, status, close }] of Object.entries(CODES)) {
    const line = `*${kind} · HTTP ${status} · close ${close} · a node ${does[reactionTo(code as Code)]}*`
    t.equal(RUNBOOK.find(({ text }) => text === `\`${code}\``)?.next, line, code)
  }
})

test('every alert has a severity, a summary and a link to its runbook entry', async (t) => {
  for (const { alert, labels, annotations } of ALERTS) {
    t.match(labels['severity'], /^(critical|warning|info)$/, alert)
    t.match(
      annotations['summary'],
      /^[A-Z].{9,59}[^.] \(\{\{ .*\$labels\.(pod|job)\b.* \}\}\)$/,
      alert,
    )
    t.match(annotations['description'], /.{40,}/, alert)
    const place = RUNBOOK.find(({ text }) => text === `\`${alert}\``)
    t.equal(annotations['runbook_url'], `${RUNBOOK_URL}#${place?.slug}`, alert)
  }
  const addresses = read('charts/openclaw/files/dashboard.json').match(/https:[^"#]*runbook[^"#]*/g)
  t.strictSame([...new Set(addresses)], [RUNBOOK_URL])
})

test('every alert has a firing and a silent case', async (t) => {
  const cases = readRuleTests().flatMap((ruleTest) => ruleTest.alert_rule_test ?? [])
  for (const { alert } of ALERTS) {
    const counts = cases
      .filter(({ alertname }) => alertname === alert)
      .map(({ exp_alerts: alerts = [] }) => alerts.length)
    t.ok(
      counts.some((count) => count > 0),
      `${alert} fires`,
    )
    t.ok(counts.includes(0), `${alert} is silent`)
  }
})

test('the dashboard and the alerts use only existing series, and all of ours', async (t) => {
  const metrics = await readMetrics()
  const known = metrics.flatMap(({ series }) => series)
  const asked = new Set<string>()
  for (const { where, expr } of listQueries()) {
    for (const name of namesIn(expr)) asked.add(name)
    t.strictSame(
      namesIn(expr).filter((name) => !known.includes(name)),
      [],
      where,
    )
  }
  const unseen = metrics.filter(({ series }) => !series.some((name) => asked.has(name)))
  const ours = unseen.map(({ name }) => name).filter((name) => name.startsWith('openclaw_k8s_'))
  t.strictSame(ours, [], 'metrics nobody looks at')
})

test('the dashboard and the alerts select by existing labels and values', async (t) => {
  const metrics = await readMetrics()
  const targets = ['namespace', 'pod', 'job', 'instance', 'le']
  for (const { where, expr } of listQueries()) {
    for (const { name, matchers } of selectorsIn(expr)) {
      const labels = metrics.find(({ series }) => series.includes(name))?.labels ?? []
      const strange = matchers
        .filter(({ label }) => !targets.includes(label))
        .flatMap(({ label, values }) => values.map((value) => ({ label, value })))
        .filter(({ label, value }) => !labels.some((series) => series[label] === value))
      t.strictSame(strange, [], `${where}: ${name}`)
    }
  }
})

test('each source file opens with one sentence that says what it answers for', async (t) => {
  const opening = /^(?:#!.*\n)?\/\*\* [A-Z`][^]*?[.!?] \*\/\n/
  const silent = SOURCES.filter((path) => !opening.test(read(path)))
  t.strictSame(silent, [])
})

/**
 * The rooms of `sidecar/src`, from the entry down. A file imports from its own room and from tiers
 * below; rooms of one tier are closed to each other. `vocabulary` is what lies in no room.
 */
const TIERS = [
  ['main'],
  ['commands'],
  ['compose', 'doctor', 'connect'],
  ['config', 'edge'],
  ['admissions'],
  ['authn'],
  ['authz'],
  ['dialect'],
  ['tunnel'],
  ['websocket'],
  ['kube'],
  ['observe'],
  ['lib'],
  ['vocabulary'],
]

const roomOf = (path: string): string => {
  const [first = '', second] = path.replace('sidecar/src/', '').split('/')
  if (second !== undefined) return first
  return ['main.ts', 'compose.ts'].includes(first) ? first.replace('.ts', '') : 'vocabulary'
}

const tierOf = (room: string): number => TIERS.findIndex((rooms) => rooms.includes(room))

const listImports = () =>
  SIDECAR.flatMap((path) =>
    [...read(path).matchAll(/(?:from |import\(|import )'(\.[^']+\.ts)'/g)].map(
      ([, target = '']) => ({
        path,
        target: join(dirname(path), target),
      }),
    ),
  )

test('imports between the rooms go down, never up or across', async (t) => {
  const wrong = listImports().filter(({ path, target }) => {
    const [from, to] = [roomOf(path), roomOf(target)]
    return from !== to && tierOf(from) >= tierOf(to)
  })
  t.strictSame(wrong, [])
  const homeless = SIDECAR.filter((path) => tierOf(roomOf(path)) === -1)
  t.strictSame(homeless, [], 'files in a room that has no tier')
})

test('the configuration imports only from the leaves', async (t) => {
  const known = ['config', 'lib', 'vocabulary']
  const wrong = listImports().filter(
    ({ path, target }) => roomOf(path) === 'config' && !known.includes(roomOf(target)),
  )
  t.strictSame(wrong, [])
})

test('no file of the sidecar is unimported', async (t) => {
  const imported = new Set(listImports().map(({ target }) => target))
  const dead = SIDECAR.filter((path) => path !== 'sidecar/src/main.ts' && !imported.has(path))
  t.strictSame(dead, [])
})

test('files and lines stay short', async (t) => {
  const long = SIDECAR.filter((path) => countCode(read(path)) > CODE_LINES_MAX)
  t.strictSame(long, [], `more than ${CODE_LINES_MAX} lines of code`)
  const wide = SIDECAR.flatMap((path) =>
    read(path)
      .split('\n')
      .flatMap((line, at) => (isTooWide(line) ? [`${path}:${at + 1}`] : [])),
  )
  t.strictSame(wide, [], `comments wider than ${COMMENT_WIDTH_MAX} columns`)
})

const isTooWide = (line: string): boolean => {
  const isComment = /^\s*(\/\*\*|\*|\/\/)/.test(line)
  return line.length > COMMENT_WIDTH_MAX && (isComment || !UNBREAKABLE.test(line))
}

const countCode = (text: string): number =>
  text
    .replaceAll(/\/\*[^]*?\*\//g, '')
    .split('\n')
    .filter((line) => line.trim() !== '' && !line.trim().startsWith('//')).length

test('the lockfile names no registry, so that everyone uses their own', async (t) => {
  const resolved = read('package-lock.json').match(/"resolved": "[a-z+]*:\/\/[^"]*"/g) ?? []
  t.strictSame(resolved, [])
})

test('no file depends on where one machine keeps the checkout', async (t) => {
  // /home/node is OpenClaw's in its image, /home/nonroot the sidecar's.
  const machine = new RegExp(
    ['work/', 'home/(?!(node|nonroot)\\b)', 'Users/', 'root/']
      .map((name) => `/${name}\\w`)
      .join('|'),
  )
  const prose = FILES.filter((path) => /\.(ts|md|json|ya?ml|sh)$|^\.ci\//.test(path))
  const bound = prose.filter((path) => path !== 'package-lock.json' && machine.test(read(path)))
  t.strictSame(
    bound.map((path) => relative(ROOT, join(ROOT, path))),
    [],
  )
})

test('every link of the documents to a file leads to one', async (t) => {
  const documents = FILES.filter((path) => path.endsWith('.md'))
  const broken = documents.flatMap((path) =>
    [...read(path).matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g)]
      .map(([, target = '']) => join(dirname(path), target))
      .filter((target) => !existsSync(join(ROOT, target)))
      .map((target) => `${path}: ${target}`),
  )
  t.strictSame(broken, [])
})

test('every source file that ARCHITECTURE.md names exists', async (t) => {
  const named = [...read('ARCHITECTURE.md').matchAll(/`((?:[\w-]+\/)*[\w-]+\.ts)`/g)].map(
    ([, path = '']) => path,
  )
  const isThere = (path: string) =>
    ['', 'sidecar/src/', 'sidecar/src/edge/', 'test/kit/'].some((place) =>
      existsSync(join(ROOT, place, path)),
    )
  t.ok(named.length > 30)
  t.strictSame(
    named.filter((path) => !isThere(path)),
    [],
  )
})

/** Habits that make a sentence need a second reading, and British spellings. */
const HABITS: readonly RegExp[] = [
  /[\u00ab\u00bb]/,
  /\banew\b/,
  /\b[Ww]hoever\b/,
  /\b(?:of|on|under|for|by) (?:its|their|our|his) own(?=[.,;:)\n])/,
  /(?<!\b[Tt]here )\b(?:is|are|was) no (?!longer\b|more\b|other\b)[a-z]/,
  /\b[Ss]o many\b/,
  /\bmend(?:s|ed)?\b/,
  /\b(?:(?:behavi|neighb|col|hon|fav)our|(?:organ|author|recogn|initial)is(?=[ei])|dia(?:ll)ed|cance(?:ll)ed)/,
]
/** What people read. Test names stand in it as quotations. */
const PROSE = FILES.filter(
  (path) =>
    SOURCES.includes(path) ||
    /^(?:README|ARCHITECTURE|CONTRIBUTING|SECURITY|CHANGELOG)\.md$/.test(path) ||
    /^docs\/[\w-]+\.md$/.test(path) ||
    /^charts\/.*(?:rules\.yaml|NOTES\.txt|values\.yaml|\.md)$/.test(path),
)

test('the prose keeps to plain English', async (t) => {
  const found = PROSE.flatMap((path) =>
    read(path)
      .replaceAll(/"[^"\n]*"/g, '""')
      .split('\n')
      .flatMap((line, at) =>
        HABITS.flatMap((habit) => habit.exec(line)?.[0] ?? []).map(
          (words) => `${path}:${at + 1}: ${words}`,
        ),
      ),
  )
  t.strictSame(found, [])
  t.ok(PROSE.length > 150)
})

test('every link of the documents to a heading leads to one', async (t) => {
  const documents = FILES.filter((path) => path.endsWith('.md'))
  const broken = documents.flatMap((path) =>
    [...read(path).matchAll(/\]\(((?!https?:)[^)#\s]*)#([^)\s]+)\)/g)]
      .map(([, target = '', slug = '']) => ({
        file: target === '' ? path : join(dirname(path), target),
        slug,
      }))
      .filter(({ file, slug }) => !listHeadings(read(file)).some((one) => one.slug === slug))
      .map(({ file, slug }) => `${path}: ${file}#${slug}`),
  )
  t.strictSame(broken, [])
})

test('every address of a file of this repository leads to one', async (t) => {
  const address = /https:\/\/github\.com\/openclaw-k8s\/auth-sidecar\/blob\/main\/([\w./-]*\w)/g
  const prose = FILES.filter((path) => /\.(ts|md|json|ya?ml|txt)$/.test(path))
  const named = prose.flatMap((path) =>
    [...read(path).matchAll(address)].map(([, target = '']) => ({ path, target })),
  )
  const broken = named.filter(({ target }) => !existsSync(join(ROOT, target)))
  t.strictSame(broken, [])
  t.ok(named.some(({ path }) => path.startsWith('.github/ISSUE_TEMPLATE/')))
})
