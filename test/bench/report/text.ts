/** A report for a terminal. */

import { spread } from './figures.ts'
import { pivot, type Table } from './pivot.ts'
import type { Report } from './report.ts'
import { judge, type Finding } from './targets.ts'

const MARKS = { met: 'ok    ', missed: 'MISSED', unmeasured: '–     ' } as const

export const renderText = (report: Report): string =>
  [...pivot(report.results).map(tableText), targetsText(judge(report.results))].join('\n')

const tableText = ({ name, unit, peers, rows }: Table): string => {
  const lines = [
    ['', ...peers],
    ...rows.map((row) => [row.name, ...row.cells.map((cell) => cell && spread(cell.rounds))]),
  ]
  const widths = lines[0]?.map((_, column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0)),
  )
  const pad = (text: string, column: number): string => {
    const width = widths?.[column] ?? 0
    return column === 0 ? text.padEnd(width) : text.padStart(width)
  }
  const body = lines.map((line) => line.map((text, column) => pad(text ?? '–', column)).join('  '))
  return `\n${name} (${unit}; median, lowest–highest round)\n${body.join('\n')}`
}

const targetsText = (findings: readonly Finding[]): string => {
  const width = Math.max(...findings.map(({ target }) => target.length))
  const lines = findings.map(
    ({ target, seen, state }) => `${MARKS[state]}  ${target.padEnd(width)}  ${seen}`,
  )
  return `\ntargets\n${lines.join('\n')}\n`
}
