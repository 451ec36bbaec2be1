/** `npm run test:openclaw`: the suite against the real product, once for each version and auth mode of its gateway. */

import { readFile, writeFile } from 'node:fs/promises'
import { rewritePage } from './compatibility.ts'
import { today, type TestResult } from '../kit/result-page.ts'
import { prepare } from './prepare.ts'
import { runInside } from '../kit/namespace.ts'
import { parseOptions, USAGE, type SuiteOptions } from './suite-options.ts'
import { titleOfRun, writeRun, type SuiteRun } from './suite-plan.ts'

type Totals = { readonly passed: number; readonly failed: number; readonly skipped: number }

/** Several times what a mode takes on two idle cores, hosted sessions included. */
const SUITE_LIMIT_MS = 25 * 60_000
const PAGE = new URL('../../docs/compatibility.md', import.meta.url)
const WRONG_USAGE = 64
const NOTHING: Totals = { passed: 0, failed: 0, skipped: 0 }

const say = (text: string): void => void process.stdout.write(`${text}\n`)

const main = async (): Promise<number> => {
  const options = parseOptions(process.argv.slice(2))
  if ('problem' in options) {
    process.stderr.write(`${options.problem}\n\n${USAGE}`)
    return WRONG_USAGE
  }
  const totals = await runAll(options)
  const { passed, failed, skipped } = totals
  say(`${passed} passed, ${failed} failed, ${skipped} skipped`)
  return failed === 0 ? 0 : 1
}

const runAll = async (options: SuiteOptions): Promise<Totals> => {
  const { gateways, node, modes } = options
  const prepared = await prepare([node, ...gateways]).catch((error: unknown) => ({ error }))
  if ('error' in prepared) {
    say(prepared.error instanceof Error ? prepared.error.message : String(prepared.error))
    return { ...NOTHING, failed: 1 }
  }
  if ('why' in prepared) {
    say(`skipped: ${prepared.why}`)
    return { ...NOTHING, skipped: gateways.length * modes.length }
  }
  const [nodeProduct, ...gatewayProducts] = prepared.products
  if (nodeProduct === undefined) return { ...NOTHING, failed: 1 }
  let totals = NOTHING
  // One behind the other: two gateways with their nodes are more than two cores start in time.
  for (const gateway of gatewayProducts) {
    for (const mode of modes) {
      const run = { mode, gateway, node: nodeProduct }
      totals = add(totals, await runOnce(prepared.namespace, run, options))
    }
  }
  return totals
}

const runOnce = async (
  namespace: readonly string[],
  run: SuiteRun,
  { only, writesPage }: SuiteOptions,
): Promise<Totals> => {
  say(titleOfRun(run))
  writeRun(run)
  const results: TestResult[] = []
  const take = (message: unknown): boolean => {
    const { test } = message as { readonly test?: TestResult }
    if (test !== undefined) results.push(test)
    return test !== undefined
  }
  const script = new URL('inside.ts', import.meta.url).pathname
  const inside = runInside(namespace, script, only === undefined ? [] : [only], take)
  const timer = setTimeout(() => {
    say(`${titleOfRun(run)}: not done within ${SUITE_LIMIT_MS / 60_000} minutes`)
    inside.kill()
  }, SUITE_LIMIT_MS)
  await inside.exited
  clearTimeout(timer)
  const totals = inside.totals()
  // A run that ended without its totals is a failure, whatever passed before, and shows no version's features.
  if (totals === undefined) return { ...NOTHING, failed: 1 }
  const absent = results.filter(({ outcome }) => outcome === 'absent').length
  if (absent > 0) say(`${absent} tests of what these versions do not have were not run`)
  if (writesPage) await writePage(run, results)
  return totals
}

const writePage = async (run: SuiteRun, results: readonly TestResult[]): Promise<void> => {
  const versions = { gateway: run.gateway.version, node: run.node.version, mode: run.mode }
  const page = await readFile(PAGE, 'utf8')
  await writeFile(PAGE, rewritePage(page, { ...versions, date: today(), results }))
  say('docs/compatibility.md has the result')
}

const add = (one: Totals, other: Totals): Totals => ({
  passed: one.passed + other.passed,
  failed: one.failed + other.failed,
  skipped: one.skipped + other.skipped,
})

process.exitCode = await main()
