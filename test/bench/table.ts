/** Results as tables for a terminal: a row a case, a column a peer, the median and how far rounds lay apart. */

import { figure } from './names.ts'
import { median, type Result } from './results.ts'

export const printTables = (results: readonly Result[], say: (line: string) => void): void => {
  for (const [table, rows] of Map.groupBy(results, (result) => result.table)) {
    const peers = [...new Set(rows.map(({ peer }) => peer))]
    const cases = Map.groupBy(rows, (result) => result.case)
    const lines = [
      ['', ...peers],
      ...[...cases].map(([name, columns]) => [
        name,
        ...peers.map((peer) => cell(columns.find((column) => column.peer === peer))),
      ]),
    ]
    say(`\n${table} (${rows[0]?.unit ?? ''}; median, lowest–highest round)`)
    const widths = ['', ...peers].map((_, column) =>
      Math.max(...lines.map((line) => line[column]?.length ?? 0)),
    )
    for (const line of lines) {
      say(line.map((text, column) => pad(text, widths[column] ?? 0, column)).join('  '))
    }
  }
}

const pad = (text: string, width: number, column: number): string =>
  column === 0 ? text.padEnd(width) : text.padStart(width)

const cell = (result: Result | undefined): string => {
  if (result === undefined) return '–'
  const { rounds } = result
  return `${figure(median(rounds))} (${figure(Math.min(...rounds))}–${figure(Math.max(...rounds))})`
}
