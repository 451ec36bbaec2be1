/** `npm run test:deploy`: chart, manifests, image and alerts, checked by their own tools and on a real API server. */

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { keepTrackOf } from '../kit/leftovers.ts'
import { runSuites, type Totals } from '../kit/suite-run.ts'
import { whyNoFirstChart } from './first-chart.ts'

/** Separate programs, which end with totals as this one does. */
const PROGRAMS = ['product', 'image', 'observability']
const TALLY = /^(\d+) passed, (\d+) failed, (\d+) skipped$/

const runProgram = async (name: string): Promise<Totals> => {
  const child = spawn(process.execPath, [join(import.meta.dirname, `${name}.ts`)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const release = keepTrackOf(async () => child.kill('SIGTERM'))
  // One that ended without its totals is a failure, whatever it said before.
  let totals: Totals = { passed: 0, failed: 1, skipped: 0 }
  for await (const line of createInterface(child.stdout)) {
    const [, passed, failed, skipped] = TALLY.exec(line) ?? []
    if (passed === undefined) process.stdout.write(`${line}\n`)
    else totals = { passed: Number(passed), failed: Number(failed), skipped: Number(skipped) }
  }
  await release()
  return totals
}

const runPrograms = async (): Promise<readonly Totals[]> => {
  const all: Totals[] = []
  for (const name of PROGRAMS) {
    if (existsSync(join(import.meta.dirname, `${name}.ts`))) all.push(await runProgram(name))
  }
  return all
}

await runSuites({
  directory: import.meta.dirname,
  suites: [
    'chart',
    'rendered',
    'autoscaling',
    'install',
    ...(whyNoFirstChart() === undefined ? ['upgrade'] : []),
    'manifests',
    'pod-security',
    'rbac',
    'config',
    'handshake',
  ],
  testLimitMs: 120_000,
  runLimitMs: 15 * 60_000,
  afterwards: runPrograms,
})
