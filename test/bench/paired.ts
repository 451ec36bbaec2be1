/** `npm run bench:paired`: this checkout beside its parent commit, in the same rounds, in about a minute. */

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { extractCommit } from '../kit/commit-files.ts'
import { linkModules } from '../kit/linked-modules.ts'
import { findGo } from './go-programs.ts'
import { compare, isTooHigh, keepLower, rowText, type Row } from './paired-rows.ts'
import { readReport } from './report/write.ts'

const USAGE = `npm run bench:paired -- [--against REF] [--again N]

  --against  the commit to compare with. Default HEAD^
  --again    how often a ratio that is too high is measured again. Default 1
`
const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const SCRATCH = join(ROOT, '.cache/paired')
const LOCK = 'package-lock.json'
const CASES = ['1 KiB x 64', '16 KiB x 64', 'admitted, verdict cached', 'refused, bad signature']
/** Many and short: what disturbs the machine disturbs both sides of a round. */
const ROUNDS = 15
const WINDOW_MS = 40

const say = (text: string): void => void process.stdout.write(`${text}\n`)
const git = (...args: readonly string[]): string =>
  execFileSync('git', ['-C', ROOT, ...args], { encoding: 'utf8', stdio: 'pipe' }).trim()

/** The commit, or `undefined` if this clone has none of that name: it is shallow, or has only one. */
const findCommit = (ref: string): string | undefined => {
  try {
    return git('rev-parse', '--verify', `${ref}^{commit}`)
  } catch {
    return undefined
  }
}

/** Another commit as a checkout with its dependencies; `undefined` if they cannot be installed. */
const checkOut = (commit: string): string | undefined => {
  mkdirSync(SCRATCH, { recursive: true })
  const directory = mkdtempSync(join(SCRATCH, 'commit-'))
  extractCommit(commit, directory)
  if (readFileSync(join(directory, LOCK), 'utf8') === readFileSync(join(ROOT, LOCK), 'utf8')) {
    for (const part of ['node_modules', 'sidecar/node_modules']) {
      linkModules(join(ROOT, part), join(directory, part), ['.cache'])
    }
    return directory
  }
  const { status } = spawnSync('npm', ['ci', '--silent'], { cwd: directory, stdio: 'inherit' })
  if (status === 0) return directory
  rmSync(directory, { recursive: true, force: true })
  return undefined
}

/** A handshake may run out of time where the machine is busy: what fails once is tried again. */
const measure = (other: string, cases: readonly string[]): readonly Row[] => {
  try {
    return measureOnce(other, cases)
  } catch (error) {
    say(String(error))
    return measureOnce(other, cases)
  }
}

const measureOnce = (other: string, cases: readonly string[]): readonly Row[] => {
  const out = mkdtempSync(join(SCRATCH, 'figures-'))
  try {
    const bench = fileURLToPath(new URL('main.ts', import.meta.url))
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [bench, '--quick', '--only', 'echo,handshakes', '--peers', 'sidecar', '--also', other].concat(
        ['--rounds', String(ROUNDS), '--ms', String(WINDOW_MS), '--out', out],
        cases.flatMap((name) => ['--cases', name]),
      ),
      { encoding: 'utf8' },
    )
    if (status !== 0) throw new Error(`the benchmark failed:\n${stdout}${stderr}`)
    return compare(readReport(out).results)
  } finally {
    rmSync(out, { recursive: true, force: true })
  }
}

/** A ratio is too high only if it is so each time. */
const measureAgain = (other: string, times: number): readonly Row[] => {
  let rows = measure(other, CASES)
  for (let time = 0; time < times; time += 1) {
    const high = rows.filter(isTooHigh).map((row) => row.case)
    if (high.length > 0) rows = keepLower(rows, measure(other, high))
  }
  return rows
}

const main = (): number => {
  const { values } = parseArgs({
    options: {
      against: { type: 'string', default: 'HEAD^' },
      again: { type: 'string', default: '1' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    say(USAGE)
    return 0
  }
  const commit = findCommit(values.against)
  if (commit === undefined) {
    say(`This clone has no commit ${values.against}: there is nothing to compare with.`)
    return 0
  }
  if (findGo() === undefined) {
    say('The load generator is a Go program, and there is no go on the PATH: nothing is compared.')
    return 0
  }
  const other = checkOut(commit)
  if (other === undefined) {
    say(`The dependencies of ${commit} cannot be installed: there is nothing to compare with.`)
    return 0
  }
  try {
    const rows = measureAgain(other, Number(values.again))
    say(`CPU time beside ${commit.slice(0, 9)}: median of ${ROUNDS} rounds (their middle half)`)
    for (const row of rows) say(rowText(row))
    return rows.length > 0 && !rows.some(isTooHigh) ? 0 : 1
  } finally {
    rmSync(other, { recursive: true, force: true })
  }
}

process.exitCode = main()
