/** The section of a run on the compatibility page: which gateway and node met, and what each test said. */

import {
  compareVersions,
  featureTable,
  listOutcomes,
  readDate,
  readFeatures,
  refreshOverview as refreshOverviewAt,
  rewriteSection,
  table,
  totalsOf,
  type Place,
  type TestResult,
} from '../kit/result-page.ts'
import { FEATURES } from './features.ts'

/** One whole run: the versions that met, and what each test said. */
export type CompatibilityRun = {
  readonly gateway: string
  readonly node: string
  readonly mode: string
  /** Of the run, as `2026-11-28`. */
  readonly date: string
  readonly results: readonly TestResult[]
}

/** Newest gateway first, then newest node, then mode. */
const compareKeys = (one: string, other: string): number => {
  const [oneParts, otherParts] = [one.split(' '), other.split(' ')]
  const [gateway, node] = [0, 1].map((at) => compareVersions(oneParts[at], otherParts[at]))
  return gateway || node || one.localeCompare(other)
}

const PLACE: Place = {
  mark: 'run',
  overview: 'overview',
  first: (page) => page.length,
  compareKeys,
  renderOverview: (sections) =>
    table(
      ['gateway', 'node', 'mode', ...FEATURES.map(({ name }) => name), 'date'],
      sections.map(({ key, text }) => [
        ...key.split(' '),
        ...readFeatures(FEATURES, text),
        readDate(text),
      ]),
    ),
}

/** The page with this run's section written or replaced. Other sections keep every byte. */
export const rewritePage = (page: string, run: CompatibilityRun): string =>
  rewriteSection(page, PLACE, {
    key: `${run.gateway} ${run.node} ${run.mode}`,
    text: renderRun(run),
  })

/** The page with its overview as its sections have it. */
export const refreshOverview = (page: string): string => refreshOverviewAt(page, PLACE)

const renderRun = ({ gateway, node, mode, date, results }: CompatibilityRun): string =>
  [
    `### Gateway ${gateway}, node ${node}, ${mode} mode`,
    `${date}: ${totalsOf(results)}.`,
    featureTable(FEATURES, results),
    ...listOutcomes('Failed:', 'failed', results),
    ...listOutcomes('Not in this version:', 'absent', results),
  ].join('\n\n')
