/** The section of a soak in docs/reliability.md. */

import { replaceMarked, table } from '../../kit/result-page.ts'
import type { Finding } from '../process-rig.ts'
import type { SoakRun } from './judge.ts'

export const rewritePage = (page: string, run: SoakRun, findings: readonly Finding[]): string =>
  replaceMarked(page, 'soak', render(run, findings))

const render = (run: SoakRun, findings: readonly Finding[]): string => {
  const { date, minutes, streams, pods, reloads, outages } = run
  const kept = findings.filter(([, , holds]) => holds).length
  return [
    `${date}, ${minutes} minutes with ${streams} streams: **${kept} of ${findings.length} promises held**. ` +
      `${pods} pods came and all that were to go were deleted, the configuration changed ${reloads} times, ` +
      `and the API server failed ${outages} times.`,
    table(
      ['promise', 'seen', 'held'],
      findings.map(([promise, seen, holds]) => [promise, seen, holds ? 'yes' : '**no**']),
    ),
  ].join('\n\n')
}
