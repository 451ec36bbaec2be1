/** The part of the performance page that is made from a report. */

import { spread } from './figures.ts'
import { pivot, type Table } from './pivot.ts'
import type { Report } from './report.ts'
import { judge, type Finding } from './targets.ts'

const REGION = /(<!-- figures -->\n)[^]*(<!-- \/figures -->)/
const MARKS = { met: 'yes', missed: '**no**', unmeasured: 'not measured' } as const

/** The page with its region rewritten. */
export const fillPage = (page: string, report: Report): string =>
  page.replace(REGION, (_, open: string, close: string) => `${open}${render(report)}${close}`)

const render = (report: Report): string =>
  [
    provenance(report),
    '### Who took part',
    participants(report),
    '### Targets',
    targets(judge(report.results)),
    ...problems(report),
    ...[...Map.groupBy(report.results, ({ section }) => section)].flatMap(([section, results]) => [
      `### ${section}`,
      ...pivot(results).map(table),
      `![${section}](${section}.svg)`,
    ]),
    '',
  ].join('\n\n')

/** Who took part, and who is missing and why. */
export const participants = ({ peers, absent }: Report): string =>
  [
    ...peers.map(({ name, about }) => `- \`${name}\`: ${about}`),
    ...absent.map(({ name, absent: why }) => `- \`${name}\`: left out, ${why}`),
  ].join('\n')

export const provenance = ({ takenAt, machine, rounds, windowMs, minutes }: Report): string => {
  const { cpu, cores, memoryGib, kernel, loadBefore } = machine
  return (
    `Taken on ${takenAt.slice(0, 10)} in ${minutes.toFixed(0)} minutes: ${cores} cores of ${cpu}, ` +
    `${memoryGib} GiB, ${kernel}, load before ${loadBefore.toFixed(2)}; ` +
    `${rounds} rounds of ${windowMs} ms for each figure.`
  )
}

const targets = (findings: readonly Finding[]): string =>
  grid(
    ['target', 'seen', 'met'],
    findings.map(({ target, seen, state }) => [target, seen, MARKS[state]]),
  )

export const problems = ({ problems: all }: Report): readonly string[] =>
  all.length === 0
    ? []
    : [
        '### What could not be measured',
        all.map((each) => `- ${each.table}, ${each.case}: ${each.peer}, ${each.reason}`).join('\n'),
      ]

const table = ({ name, unit, peers, rows }: Table): string =>
  `**${name}**: ${unit}, median (lowest–highest round)\n\n${grid(
    ['', ...peers],
    rows.map((row) => [row.name, ...row.cells.map((cell) => (cell ? spread(cell.rounds) : '–'))]),
  )}`

/** A table in Markdown. */
export const grid = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows]
    .map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`)
    .join('\n')
