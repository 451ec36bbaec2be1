/** The page of a run beside kube-rbac-proxy and oauth2-proxy, made of its report alone. */

import { median, type Result } from '../results.ts'
import { CONNECT_CPU, CONNECT_P50, CONNECT_P99 } from '../sections/connects.ts'
import { EACH, RSS, STORM } from '../sections/idle.ts'
import { ENDINGS, REFUSALS } from '../sections/refusals.ts'
import { figure, spread } from './figures.ts'
import { grid, participants, problems, provenance } from './page.ts'
import { LOAD_QUIET, type Report } from './report.ts'

const ROUND_TRIP = 'round trip of 128 B, one connection'
const ECHO = 'echo, plain'
const STREAMS = 'streams of 64 KiB messages, plain'

/** The rows of the table that comes first: what it says, and whose medians it shows. */
const GLANCE: readonly (readonly [row: string, table: string, name: string])[] = [
  ['CPU ms, admitted, new token', CONNECT_CPU, 'admitted, new token'],
  ['CPU ms, admitted, token seen before', CONNECT_CPU, 'admitted, token seen before'],
  ['CPU ms, refused, bad signature', CONNECT_CPU, 'refused, bad signature, new token'],
  ['ms to an answer, new token', CONNECT_P50, 'admitted, new token'],
  ['ms to an answer, token seen before', CONNECT_P50, 'admitted, token seen before'],
  ['µs a message takes longer', ROUND_TRIP, 'p50 added'],
  ['MiB resident, 5,000 connections', RSS, '5,000'],
  ['CPU µs per echo of 1 KiB, 64 connections', ECHO, '1 KiB x 64'],
  ['CPU µs per echo of 16 KiB, 64 connections', ECHO, '16 KiB x 64'],
  ['CPU s per GB down', STREAMS, 'down'],
  ['CPU s per GB up', STREAMS, 'up'],
  ['open stream of a deleted pod ends', ENDINGS, 'open stream, pod deleted'],
]

const INTRODUCTION = `# Beside kube-rbac-proxy and oauth2-proxy

What authentication costs a connection in the proxies one would otherwise put before a gateway, and what it is worth.
A run writes this whole page: \`npm run bench -- --only peers\`, with \`--quick\` a small one that leaves the page alone.
[README.md](README.md#how-it-is-measured) says how it is measured. The two products are built from
their Go modules; \`BENCH_TOOLS_DIR\` says where the programs are kept, by default \`~/.cache/openclaw-k8s/bench\`.

All stand before the same echo server, on plain ports, and ask the same stand-in API server, which answers at once.
\`go\` is the least that such a proxy can be. Logs are on, and go to files.`

const MEANING = `A *new* token was never shown to this proxy; *seen before* are 16 tokens again and again. A *bad signature* differs
from a good token in nothing else. The *other ServiceAccount* is one that may not connect; its tokens are good.
CPU time is that of the proxy alone, for 32 connects at a time. The latency is from the client's connect to the status line
for one connect at a time, with client, proxy, echo server and API server on the same cores; behind a real API server
every question adds its own round trip. *lets in*: this proxy does not refuse it, so a refusal costs nothing here.
*Limits as shipped*: kube-rbac-proxy asks the API server each of its two questions at most five times a second; everywhere
else this limit is raised.`

const REFUSING = `Each case was tried once on each proxy. *lets in* is a WebSocket to the gateway. What "ends" counts from the moment the
API server has deleted the pod, or from the \`exp\` of the token; *never* and *lets in* hold for the time in brackets.
Known tokens were shown before and are shown again every half second. The sidecar keeps a stream past the \`exp\` of its
token while the pod lives; with \`k8sTrust.onTokenExpiry: close\` it ends there.`

const BOUNDS = `- The API server is a stand-in without a network between: its answers take less than a millisecond.
- kube-rbac-proxy is run as its authors advise against, without TLS, as all of these are.
- oauth2-proxy is made for people with browsers. Verifying ServiceAccount tokens is a by-product, without any question
  to the cluster: it cannot notice before the token's \`exp\` that its pod or ServiceAccount is gone.
- Neither looks at what streams carry.`

export const renderPeers = (report: Report): string =>
  [
    INTRODUCTION,
    provenance(report),
    ...busy(report),
    '## At a glance',
    glance(report),
    '## Who took part',
    participants(report),
    '## Connects',
    MEANING,
    ...tables(report, [CONNECT_CPU, CONNECT_P50, CONNECT_P99]),
    '## Open streams',
    ...tables(report, [ROUND_TRIP, ECHO, STREAMS]),
    '## Memory',
    ...tables(report, [RSS, EACH, STORM]),
    '## What is checked, and for how long a yes lasts',
    REFUSING,
    ...tables(report, [REFUSALS, ENDINGS]),
    ...problems(report),
    '## What it does not show',
    BOUNDS,
    '',
  ].join('\n\n')

const busy = ({ machine }: Report): readonly string[] =>
  machine.loadBefore > LOAD_QUIET
    ? ['**The machine was busy with other work during this run:** compare columns, not runs.']
    : []

const glance = (report: Report): string => {
  const columns = columnsOf(report)
  return grid(
    ['median', ...columns],
    GLANCE.map(([row, table, name]) => [
      row,
      ...columns.map((peer) =>
        cell(report, { table, name, peer }, ({ rounds }) => figure(median(rounds))),
      ),
    ]),
  )
}

/** Each of these tables that has a row. */
const tables = (report: Report, names: readonly string[]): readonly string[] =>
  names.flatMap((table) => {
    const all = [...report.results, ...(report.facts ?? [])].filter((each) => each.table === table)
    if (all.length === 0) return []
    const unit = report.results.find((result) => result.table === table)?.unit
    const columns = columnsOf(report)
    const rows = [...new Set(all.map((each) => each.case))]
      .map((name) => ({
        name,
        cells: columns.map((peer) =>
          cell(report, { table, name, peer }, ({ rounds }) => spread(rounds)),
        ),
      }))
      // What is measured without a proxy has no column.
      .filter(({ cells }) => cells.some((each) => each !== NOTHING))
      .map(({ name, cells }) => [name, ...cells])
    const heading =
      unit === undefined ? `**${table}**` : `**${table}**: ${unit}, median (lowest–highest round)`
    return [`${heading}\n\n${grid(['', ...columns], rows)}`]
  })

const columnsOf = ({ peers }: Report): readonly string[] => peers.map(({ name }) => name)

const NOTHING = '–'

type Place = { readonly table: string; readonly name: string; readonly peer: string }

/** A figure, else what was seen in its place, else a dash. */
const cell = (
  { results, facts = [] }: Report,
  { table, name, peer }: Place,
  write: (result: Result) => string,
): string => {
  const isHere = (each: Omit<Result, 'unit' | 'section' | 'rounds'>): boolean =>
    each.table === table && each.case === name && each.peer === peer
  const result = results.find(isHere)
  return result === undefined ? (facts.find(isHere)?.seen ?? NOTHING) : write(result)
}
