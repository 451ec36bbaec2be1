/** The report of a benchmark: how rounds become figures, and whether the published page is true to them. */

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { fillPage } from '../bench/report/page.ts'
import { compare, isTooHigh, keepLower, rowText } from '../bench/paired-rows.ts'
import { judge } from '../bench/report/targets.ts'
import { renderText } from '../bench/report/text.ts'
import { readReport, renderPlots } from '../bench/report/write.ts'
import { median, ratio, type Result } from '../bench/results.ts'

const PERFORMANCE = fileURLToPath(new URL('../../docs/performance/', import.meta.url))

const echo = (peer: string, rounds: readonly number[]): Result => ({
  section: 'echo',
  table: 'echo, plain',
  case: '1 KiB x 64',
  unit: 'CPU µs per echo',
  peer,
  rounds,
})

test('a median of an even number of rounds lies between the middle two', async (t) => {
  t.equal(median([4, 1, 3, 2]), 2.5)
  t.equal(median([3, 1, 2]), 2)
})

test('a ratio compares what was measured in the same round', async (t) => {
  // Each round is twice as noisy as the one before, and in each we cost half as much.
  t.equal(ratio([1, 2, 4], [2, 4, 8]), 0.5)
  // The two medians are equal, although in most rounds we cost more.
  t.equal(ratio([2, 4, 3], [1, 3, 4]), 4 / 3)
})

test('a target is met, missed or reported as not measured', async (t) => {
  const find = (results: readonly Result[], text: string) =>
    judge(results).find(({ target }) => target.includes(text))
  const beside = (ours: number) => [echo('sidecar', [ours]), echo('go', [10])]
  t.match(find(beside(10.5), '1.05 x go'), { state: 'met', seen: '1.05 x go' })
  t.match(find(beside(10.6), '1.05 x go'), { state: 'missed', seen: '1.06 x go' })
  t.match(find(beside(10), '1.3 x'), { state: 'unmeasured' }, 'no tuned peer took part')
  t.match(find([], 'verdict cached'), { state: 'unmeasured' })
})

test('each kind of row has its own maximum beside Go', async (t) => {
  const targetsOf = (table: string, row: string): readonly string[] =>
    judge(['sidecar', 'go'].map((peer) => ({ ...echo(peer, [1]), table, case: row })))
      .filter(({ state }) => state === 'met')
      .map(({ target }) => target)
  for (const [table, row, max] of [
    ['echo, plain', '1 KiB x 1', '1 x go'],
    ['echo, plain', '128 B x 64', '1.05 x go'],
    ['echo, plain', '1 KiB x 1,000', '1.15 x go'],
    ['echo, plain', '16 KiB x 1,000', '1 x go'],
    ['echo, TLS', '16 KiB x 64', '1.3 x go'],
    ['streams of 64 KiB messages, TLS', 'up', '1.2 x go'],
  ] as const) {
    t.strictSame(targetsOf(table, row), [`${table}, ${row}: <= ${max}`])
  }
})

test('with several peers the cheapest one counts', async (t) => {
  const results = [
    echo('sidecar', [13]),
    echo('nginx-64k', [12]),
    echo('haproxy-64k', [10]),
    echo('haproxy', [1]),
  ]
  const finding = judge(results).find(({ target }) => target.includes('1.3 x'))
  t.match(finding, { state: 'met', seen: '1.30 x haproxy-64k' })
})

test('the published page and plots are what the kept figures say', async (t) => {
  // `node test/bench/render.ts` makes them again.
  const report = readReport(PERFORMANCE)
  const page = readFileSync(`${PERFORMANCE}README.md`, 'utf8')
  t.equal(page, fillPage(page, report))
  for (const [name, plot] of renderPlots(report)) {
    t.equal(readFileSync(`${PERFORMANCE}${name}`, 'utf8'), plot, name)
  }
})

test('a terminal shows what could not be compared as a dash, and a missed target as missed', async (t) => {
  const report = readReport(PERFORMANCE)
  const text = renderText({
    ...report,
    results: [echo('sidecar', [20, 22, 21]), echo('go', [10, 10, 10])],
  })
  t.match(text, /1 KiB x 64 +21\.0 \(20\.0–22\.0\) +10\.0 \(10\.0–10\.0\)/)
  t.match(text, /MISSED +echo, plain, 1 KiB x 64: <= 1\.05 x go +2\.10 x go/)
  t.match(text, /– +handshakes, plain, .*not measured/)
})

const pair = (ours: readonly number[], theirs: readonly number[]) => {
  const [row] = compare([echo('sidecar', ours), echo('sidecar@parent', theirs)])
  if (row === undefined) throw new Error('no row')
  return row
}

test('beside its parent a commit fails above 1.5 times the CPU time, and only if it is so twice', async (t) => {
  const row = pair([16, 15, 31], [10, 10, 20])
  t.match(row, { median: 1.55, case: '1 KiB x 64', table: 'echo, plain' })
  t.ok(isTooHigh(row))
  t.notOk(isTooHigh(pair([15, 15, 15], [10, 10, 10])))
  t.ok(isTooHigh(pair([15], [])), 'what was not measured is not good')
  const [lower] = keepLower([row], [pair([11], [10])])
  t.equal(lower?.median, 1.1)
  t.strictSame(keepLower([row], [pair([17], [10])]), [row])
  t.strictSame(keepLower([row], []), [row])
})

test('beside its parent a commit is slower only where most rounds say so', async (t) => {
  const tens = Array<number>(8).fill(10)
  t.match(rowText(pair([12, 12, 12, 13, 12, 12, 14, 9], tens)), /^slower  1\.20 /)
  t.match(rowText(pair([9, 8, 9, 7, 8, 8, 6, 11], tens)), /^faster/)
  t.match(rowText(pair([9, 11, 9, 12, 8, 13, 10, 10], tens)), /^same/)
  t.match(
    rowText(pair([20, 20], [10, 10])),
    /^FAILED  2\.00 \(2\.00–2\.00\)  echo, plain: 1 KiB x 64$/,
  )
})
