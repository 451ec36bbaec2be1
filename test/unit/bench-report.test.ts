/** The report of a benchmark: how rounds become figures, and whether the published page is true to them. */

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { fillPage } from '../bench/report/page.ts'
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
  t.match(find(beside(10), '1 x go'), { state: 'met', seen: '1.00 x go' })
  t.match(find(beside(10.2), '1 x go'), { state: 'missed', seen: '1.02 x go' })
  t.match(find(beside(10), '1.3 x'), { state: 'unmeasured' }, 'no tuned peer took part')
  t.match(find([], 'verdict cached'), { state: 'unmeasured' })
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
  t.match(text, /MISSED +echo, plain, 1 KiB x 64: <= 1 x go +2\.10 x go/)
  t.match(text, /– +handshakes, plain, .*not measured/)
})
