/** The benchmark beside other products: who takes part, and how its report becomes a page. */

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { isWhole, parseOptions } from '../bench/options.ts'
import { buildProgram } from '../bench/peers/go-modules.ts'
import { renderPeers } from '../bench/report/peers-page.ts'
import type { Report } from '../bench/report/report.ts'
import { readPeers } from '../bench/report/write.ts'
import { CONNECT_CPU, judgeAnswers } from '../bench/sections/connects.ts'
import { ENDINGS, REFUSALS } from '../bench/sections/refusals.ts'

const PERFORMANCE = fileURLToPath(new URL('../../docs/performance/', import.meta.url))
const PROGRAM = { name: 'proxy', module: 'example.com/proxy@v1.2.3', sum: 'h1:', package: '.' }
const NEW = 'refused, other ServiceAccount, new token'
const DELETED = 'open stream, pod deleted'

const report: Report = {
  takenAt: '2026-11-01T00:00:00.000Z',
  machine: { cpu: 'CPU', cores: 2, memoryGib: 4, kernel: 'Linux', loadBefore: 0.1 },
  rounds: 3,
  windowMs: 500,
  minutes: 9,
  peers: [
    { name: 'sidecar', about: 'ours' },
    { name: 'go', about: 'theirs' },
  ],
  absent: [{ name: 'kube-rbac-proxy', absent: 'go not found' }],
  results: [
    {
      section: 'peers',
      table: CONNECT_CPU,
      case: NEW,
      unit: 'CPU ms',
      peer: 'sidecar',
      rounds: [3, 1, 2],
    },
  ],
  facts: [
    { table: CONNECT_CPU, case: NEW, peer: 'go', seen: 'lets in' },
    { table: ENDINGS, case: DELETED, peer: 'sidecar', seen: 'after 12 ms, close 1008' },
    { table: ENDINGS, case: DELETED, peer: 'go', seen: 'never (150 s observed)' },
    { table: REFUSALS, case: 'a bad signature', peer: 'go', seen: 'refuses (401)' },
  ],
  problems: [{ table: CONNECT_CPU, case: NEW, peer: 'other', reason: 'answers: 500' }],
}

test('the page has a figure, else what was seen in its place, else a dash', async (t) => {
  const page = renderPeers(report)
  t.match(page, `| ${NEW} | 2.00 (1.00–3.00) | lets in |`)
  t.match(page, `| ${DELETED} | after 12 ms, close 1008 | never (150 s observed) |`)
  t.match(page, '| a bad signature | – | refuses (401) |')
  t.match(
    page,
    /open stream of a deleted pod ends \| after 12 ms, close 1008 \| never/,
    'at a glance',
  )
})

test('who is missing and what could not be measured is on the page, with the reason', async (t) => {
  const page = renderPeers(report)
  t.match(page, '`kube-rbac-proxy`: left out, go not found')
  t.match(page, 'other, answers: 500')
})

test('an answer that nobody could tell counts as neither an admission nor a refusal', async (t) => {
  t.equal(judgeAnswers({ 101: 5 }, true), true)
  t.equal(judgeAnswers({ 401: 4, 403: 1 }, false), true)
  t.equal(judgeAnswers({ 101: 5 }, false), false, 'a proxy that does not refuse')
  for (const statuses of [{ 101: 4, 503: 1 }, { 401: 5 }, {}]) {
    t.throws(() => judgeAnswers(statuses, true), /answers/, JSON.stringify(statuses))
  }
  for (const statuses of [{ 503: 5 }, { 401: 4, 503: 1 }, { 101: 1, 403: 4 }]) {
    t.throws(() => judgeAnswers(statuses, false), /answers/, JSON.stringify(statuses))
  }
})

test('a page from a busy machine says so', async (t) => {
  t.notMatch(renderPeers(report), /machine was busy/)
  const machine = { ...report.machine, loadBefore: 3 }
  t.match(renderPeers({ ...report, machine }), /machine was busy/)
})

test('the published page is what the kept figures say', async (t) => {
  // `node test/bench/render.ts` makes it again.
  t.equal(readFileSync(join(PERFORMANCE, 'peers.md'), 'utf8'), renderPeers(readPeers(PERFORMANCE)))
})

test('only a whole run of the peers alone replaces their page', async (t) => {
  const whole = (...argv: readonly string[]): boolean => {
    const options = parseOptions(argv)
    return options !== undefined && isWhole(options)
  }
  t.ok(whole('--only', 'peers'))
  t.notOk(whole('--only', 'peers', '--quick'))
  t.notOk(whole('--only', 'peers', '--peers', 'sidecar'))
  t.throws(() => parseOptions(['--only', 'peers,echo']), /no other section/)
  t.strictSame(parseOptions(['--only', 'peers'])?.sections, ['peers'])
  t.notOk(parseOptions([])?.sections.includes('peers'), 'and a run of all others has none of them')
})

test('a product is built once, and without Go it is left out with the reason', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'bench-peers-'))
  const { PATH, BENCH_TOOLS_DIR } = process.env
  t.teardown(() => {
    rmSync(directory, { recursive: true })
    process.env['PATH'] = PATH
    if (BENCH_TOOLS_DIR === undefined) delete process.env['BENCH_TOOLS_DIR']
    else process.env['BENCH_TOOLS_DIR'] = BENCH_TOOLS_DIR
  })
  process.env['BENCH_TOOLS_DIR'] = directory
  process.env['PATH'] = directory
  t.strictSame(await buildProgram(PROGRAM), { why: 'go not found' })
  const kept = join(directory, 'example.com_proxy@v1.2.3')
  mkdirSync(kept)
  writeFileSync(join(kept, 'proxy'), '')
  t.strictSame(await buildProgram(PROGRAM), { path: join(kept, 'proxy') })
})
