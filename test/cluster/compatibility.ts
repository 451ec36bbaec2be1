/** The section of a run on the compatibility page: a version of Kubernetes, and what each test said there. */

import {
  compareVersions,
  countOf,
  featureTable,
  listOutcomes,
  readDate,
  readFeatures,
  refreshOverview as refreshOverviewAt,
  rewriteSection,
  table,
  UNTESTED,
  type Feature,
  type Place,
  type TestResult,
} from '../kit/result-page.ts'

/** One whole run against one API server. */
export type KubernetesRun = {
  /** Of the API server, as `v1.35.4`. */
  readonly version: string
  /** Of the run, as `2026-11-28`. */
  readonly date: string
  readonly results: readonly TestResult[]
  /** What the suite measured of revocation, in its own words; `undefined` if it did not come to that. */
  readonly revocation: string | undefined
}

export const FEATURES: readonly Feature[] = [
  {
    name: 'roles',
    tests: [
      'the sidecar may review tokens and see pods and ServiceAccounts, and nothing else',
      'the first requests of an intruder in the sidecar are refused',
    ],
  },
  {
    name: 'doctor',
    tests: ['the doctor finds every granted right, and reports those that are missing'],
  },
  {
    name: 'verdicts as of the API server',
    tests: [
      'tokens as the cluster issues them get the same verdict from both',
      'the sidecar knows first that a pod or a ServiceAccount is gone',
      'a token with any one character changed is refused by both',
      'every claim and header field changed, signed and unsigned, and times around the limits',
    ],
  },
  {
    name: 'revocation',
    tests: [
      '50 pods force-deleted at once: 1,000 streams closed and all callers refused within a second, while the API server still vouches',
      'a gracefully deleted pod gets no new stream, and the open one ends with the shorter grace',
      'a re-created pod is another pod: the old token is refused at once, the new one is good',
      'a pod that is deleted during its admission has no stream left',
      'a deleted ServiceAccount closes the streams of its pods within 5 s and admits none of them',
    ],
  },
  {
    name: 'source address',
    tests: ['the token of one pod is refused from the address of another, in every carrier'],
  },
  {
    name: 'watch',
    tests: [
      'a watch that is dropped 20 times in a row misses no deletion and admits no deleted pod',
      'a watch that is black-holed without a reset ends by itself',
      'a black-holed watch admits no deleted pod, and ends by the answer that it should have given',
      'a deletion during a restart of the API server is found when it is back',
      'a version too old for the API server (410) is followed by a list that finds the deletion',
    ],
  },
  { name: 'outage', tests: ['frozen', 'killed, and started again'] },
]

/** How the suite tells what it measured: that of streams first, then that of callers. */
const MEASURED = /^streams closed p99 (\d+ ms), .*; callers refused p99 (\d+ ms), /
/** The same on the page. */
const P99 = /^p99 from the deletion of a pod: (\d+ ms) to the end of its streams, (\d+ ms) to /m

const PLACE: Place = {
  mark: 'kubernetes',
  overview: 'overview of kubernetes',
  first(page) {
    const mark = '<!-- end overview of kubernetes -->'
    return page.indexOf(mark) + mark.length
  },
  compareKeys: compareVersions,
  renderOverview: (sections) =>
    table(
      ['Kubernetes', ...FEATURES.map(({ name }) => name), 'p99 revocation', 'date'],
      sections.map(({ key, text }) => {
        const [, streams, callers] = P99.exec(text) ?? []
        const p99 = streams === undefined ? UNTESTED : `${streams}, ${callers}`
        return [key, ...readFeatures(FEATURES, text), p99, readDate(text)]
      }),
    ),
}

/** Whether a line of the suite tells what it measured. */
export const isMeasured = (line: string): boolean => MEASURED.test(line)

/** The page with this run's section written or replaced. Other sections keep every byte. */
export const rewritePage = (page: string, run: KubernetesRun): string =>
  rewriteSection(page, PLACE, { key: run.version, text: renderRun(run) })

/** The page with its overview as its sections have it. */
export const refreshOverview = (page: string): string => refreshOverviewAt(page, PLACE)

const renderRun = ({ version, date, results, revocation = '' }: KubernetesRun): string => {
  const [, streams, callers] = MEASURED.exec(revocation) ?? []
  const p99 = `p99 from the deletion of a pod: ${streams} to the end of its streams, ${callers} to the first refusal of its token.`
  return [
    `### Kubernetes ${version}`,
    `${date}: ${countOf('passed', results)} passed, ${countOf('failed', results)} failed, ${countOf('skipped', results)} skipped.`,
    ...(streams === undefined ? [] : [p99]),
    featureTable(FEATURES, results),
    ...listOutcomes('Failed:', 'failed', results),
    ...listOutcomes('Skipped:', 'skipped', results),
  ].join('\n\n')
}
