/** `npm run bench:paired`: this checkout beside another commit, in the same rounds, for about a minute. */

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { extractCommit } from '../kit/commit-files.ts'
import { linkModules } from '../kit/linked-modules.ts'
import { readReport } from './report/write.ts'
import { ratio, type Result } from './results.ts'

const USAGE = `npm run bench:paired -- [--against REF] [--runs N]

  --against  the commit to compare with. Default HEAD^
  --runs     how often a figure that is too high is measured again. Default 1
`
const ROOT = fileURLToPath(new URL('../../', import.meta.url))
/** CPU time in this checkout, as a multiple of that in the other one. */
const RATIO_MAX = 1.5
const CASES = [
  ['echo', '1 KiB x 64'],
  ['echo', '16 KiB x 64'],
  ['handshakes', 'admitted, verdict cached'],
  ['handshakes', 'refused, bad signature'],
] as const
const ROUNDS = 5

type Row = { readonly name: string; readonly ratio: number }

const say = (text: string): void => void process.stdout.write(`${text}\n`)
const git = (...args: readonly string[]): string =>
  execFileSync('git', ['-C', ROOT, ...args], { encoding: 'utf8' }).trim()

/** Another commit as a checkout. Its dependencies are those of this one. */
const checkOut = (commit: string): string => {
  const directory = mkdtempSync(join(tmpdir(), 'bench-paired-'))
  extractCommit(commit, directory)
  for (const part of ['node_modules', 'sidecar/node_modules']) {
    linkModules(join(ROOT, part), join(directory, part), ['.cache'])
  }
  return directory
}

const measure = (
  other: string,
  [section, cases]: readonly [section: string, cases: string],
): readonly Row[] => {
  const out = mkdtempSync(join(tmpdir(), 'bench-paired-figures-'))
  try {
    const args = ['--quick', '--only', section, '--cases', cases, '--peers', 'sidecar']
    const rest = ['--also', other, '--rounds', String(ROUNDS), '--out', out]
    const bench = fileURLToPath(new URL('main.ts', import.meta.url))
    const { status, stdout, stderr } = spawnSync(process.execPath, [bench, ...args, ...rest], {
      encoding: 'utf8',
    })
    if (status !== 0) throw new Error(`the benchmark failed:\n${stdout}${stderr}`)
    return pair(readReport(out).results.filter(({ unit }) => unit.startsWith('CPU')))
  } finally {
    rmSync(out, { recursive: true, force: true })
  }
}

/** What both have measured. */
const pair = (results: readonly Result[]): readonly Row[] =>
  [...Map.groupBy(results, (result) => `${result.table}: ${result.case}`)].flatMap(
    ([name, both]) => {
      const ours = both.find(({ peer }) => peer === 'sidecar')
      const theirs = both.find(({ peer }) => peer !== 'sidecar')
      if (ours === undefined || theirs === undefined) return []
      return [{ name, ratio: ratio(ours.rounds, theirs.rounds) }]
    },
  )

const isTooHigh = (row: Row): boolean => row.ratio > RATIO_MAX

/** A figure is too high only if it is so each time. */
const compare = (other: string, again: number): readonly Row[] =>
  CASES.flatMap((each) => {
    let rows = measure(other, each)
    for (let time = 0; time < again && rows.some(isTooHigh); time += 1) {
      const next = measure(other, each)
      rows = rows.map((row) => lower(row, next))
    }
    return rows
  })

const lower = (row: Row, next: readonly Row[]): Row => {
  const same = next.find(({ name }) => name === row.name)
  return same !== undefined && same.ratio < row.ratio ? same : row
}

const main = (): number => {
  const { values } = parseArgs({
    options: {
      against: { type: 'string', default: 'HEAD^' },
      runs: { type: 'string', default: '1' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    say(USAGE)
    return 0
  }
  const commit = git('rev-parse', values.against)
  const other = checkOut(commit)
  try {
    const rows = compare(other, Number(values.runs))
    say(`CPU time beside ${commit.slice(0, 9)}, median of ${ROUNDS} rounds`)
    for (const row of rows) {
      say(`${isTooHigh(row) ? 'not ok' : 'ok'} ${row.ratio.toFixed(2)} x  ${row.name}`)
    }
    const failed = rows.filter(isTooHigh).length
    say(`${rows.length - failed} passed, ${failed} failed, 0 skipped`)
    return failed === 0 && rows.length > 0 ? 0 : 1
  } finally {
    rmSync(other, { recursive: true, force: true })
  }
}

process.exitCode = main()
