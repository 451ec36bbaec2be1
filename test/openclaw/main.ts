/** `npm run test:openclaw`: the suite against the real product, once for each auth mode of its gateway. */

import { parseArgs } from 'node:util'
import type { GatewayMode } from './gateway.ts'
import { prepare } from './prepare.ts'
import { runInside } from './namespace.ts'

type Totals = { readonly passed: number; readonly failed: number; readonly skipped: number }

const SUITE_LIMIT_MS = 8 * 60_000
const MODES: readonly GatewayMode[] = ['token', 'trusted-proxy']

const { values } = parseArgs({
  options: { mode: { type: 'string', multiple: true }, only: { type: 'string' } },
})

const main = async (): Promise<number> => {
  const wanted = MODES.filter((mode) => values.mode?.includes(mode) ?? true)
  const prepared = await prepare()
  if ('why' in prepared) {
    process.stdout.write(`skipped: ${prepared.why}\n`)
    return summary({ passed: 0, failed: 0, skipped: wanted.length })
  }
  // One behind the other: two gateways with their nodes are more than two cores start in time.
  const totals: Totals[] = []
  for (const mode of wanted) totals.push(await runMode(prepared.namespace, mode))
  return summary({
    passed: sum(totals.map(({ passed }) => passed)),
    failed: sum(totals.map(({ failed }) => failed)),
    skipped: sum(totals.map(({ skipped }) => skipped)),
  })
}

const runMode = async (namespace: readonly string[], mode: GatewayMode): Promise<Totals> => {
  const only = values.only === undefined ? [] : [values.only]
  const inside = runInside(namespace, new URL('inside.ts', import.meta.url).pathname, [
    mode,
    ...only,
  ])
  const timer = setTimeout(() => {
    process.stdout.write(`${mode}: not done within ${SUITE_LIMIT_MS / 60_000} minutes\n`)
    inside.kill()
  }, SUITE_LIMIT_MS)
  await inside.exited
  clearTimeout(timer)
  // A run that ended without its totals is a failure, whatever passed before.
  return inside.totals() ?? { passed: 0, failed: 1, skipped: 0 }
}

const summary = ({ passed, failed, skipped }: Totals): number => {
  process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`)
  return failed === 0 ? 0 : 1
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0)

process.exitCode = await main()
