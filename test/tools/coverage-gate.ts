/** Fails when the tests cover less of the sidecar than promised: the bounds of `tap` include all files. */

import { readFileSync } from 'node:fs'

const LINES_PERCENT_MIN = 90
const SUMMARY = '.tap/report/coverage-summary.json'

type Summary = Readonly<
  Record<string, { readonly lines: { readonly total: number; readonly covered: number } }>
>

const summary = JSON.parse(readFileSync(SUMMARY, 'utf8')) as Summary
const sources = Object.entries(summary).filter(([path]) => path.includes('/sidecar/src/'))
const sum = (name: 'total' | 'covered') =>
  sources.reduce((all, [, { lines }]) => all + lines[name], 0)
// Without a single source there is nothing to divide by: NaN is below every bound.
const percent = (sum('covered') / sum('total')) * 100

process.stdout.write(
  `${percent.toFixed(2)} % of the sidecar's lines; at least ${LINES_PERCENT_MIN} %\n`,
)
process.exitCode = percent >= LINES_PERCENT_MIN ? 0 : 1
