/** `node test/deploy/observability.ts`: the alerts and the dashboard, judged by Prometheus itself. */

import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { listQueries, RULE_TESTS, RULES } from '../kit/observability-files.ts'
import { watchSidecar } from './watched-sidecar.ts'

type Check = { readonly name: string; readonly run: () => Promise<void> }

const run = promisify(execFile)
const totals = { passed: 0, failed: 0, skipped: 0 }

const main = async (): Promise<void> => {
  const directory = await mkdtemp(join(tmpdir(), 'observability-'))
  // Prometheus ends with this process, however it ends.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
  try {
    if (await isThere('promtool')) await runChecks(promtoolChecks(directory))
    // They come together: where one is missing, one is counted.
    if (totals.skipped === 0 && (await isThere('prometheus'))) await watchChecks(directory)
  } catch (error) {
    totals.failed += 1
    process.stdout.write(`not ok ${explain(error)}\n`)
  } finally {
    await rm(directory, { recursive: true })
  }
  const { passed, failed, skipped } = totals
  process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`)
  process.exitCode = failed === 0 ? 0 : 1
}

const isThere = async (program: string): Promise<boolean> => {
  try {
    await run(program, ['--version'])
    return true
  } catch {
    process.stdout.write(`skipped: ${program} is not installed (Debian's package prometheus)\n`)
    totals.skipped += 1
    return false
  }
}

const runChecks = async (checks: readonly Check[]): Promise<void> => {
  for (const check of checks) {
    try {
      await check.run()
      totals.passed += 1
      process.stdout.write(`ok     ${check.name}\n`)
    } catch (error) {
      totals.failed += 1
      process.stdout.write(`not ok ${check.name}\n${explain(error)}\n`)
    }
  }
}

const promtoolChecks = (directory: string): readonly Check[] => [
  {
    name: 'the alerts are good rules',
    run: async () => void (await run('promtool', ['check', 'rules', fileURLToPath(RULES)])),
  },
  {
    name: 'each alert fires when it should, and is silent beside it',
    run: async () => void (await run('promtool', ['test', 'rules', fileURLToPath(RULE_TESTS)])),
  },
  {
    name: 'every query of the dashboard is PromQL',
    run: async () => {
      const file = join(directory, 'queries.json')
      const rules = listQueries().map(({ expr }, at) => ({
        record: `query_${at}`,
        expr: expr.replaceAll('$__rate_interval', '1m'),
      }))
      await writeFile(file, JSON.stringify({ groups: [{ name: 'dashboard', rules }] }))
      await run('promtool', ['check', 'rules', file])
    },
  },
]

const watchChecks = async (directory: string): Promise<void> => {
  const watched = await watchSidecar(directory)
  try {
    await runChecks([
      { name: 'workers that come, fail and go are scraped', run: watched.makeHistory },
      { name: 'every query of the dashboard has an answer', run: watched.queriesAnswer },
      { name: 'workers are counted under their own namespace', run: watched.namespacesStay },
      { name: 'every alert can be evaluated', run: watched.alertsEvaluate },
      {
        name: 'failed attempts raise their alert, and nobody is woken',
        run: watched.nobodyIsWoken,
      },
      { name: 'a sidecar that is gone is noticed', run: watched.goneIsNoticed },
    ])
  } finally {
    await watched.stop()
  }
}

const explain = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
  return `${error.message}\n${stdout}${stderr}`.trimEnd()
}

await main()
