/** Writes a report: the figures as JSON, the plots, and the page if there is one. */

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fillPage } from './page.ts'
import type { Report } from './report.ts'
import { renderSvg } from './svg.ts'

const FIGURES = 'figures.json'
const PAGE = 'README.md'

export const writeReport = (directory: string, report: Report): void => {
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, FIGURES), `${toJson(report)}\n`)
  render(directory)
}

/** Makes plots and page again from the stored figures. */
export const render = (directory: string): void => {
  const report = readReport(directory)
  for (const [name, text] of renderPlots(report)) writeFileSync(join(directory, name), text)
  const page = join(directory, PAGE)
  if (existsSync(page)) writeFileSync(page, fillPage(readFileSync(page, 'utf8'), report))
}

export const readReport = (directory: string): Report =>
  JSON.parse(readFileSync(join(directory, FIGURES), 'utf8')) as Report

/** A plot for each section, by file name. */
export const renderPlots = ({ results }: Report): ReadonlyMap<string, string> =>
  new Map(
    [...Map.groupBy(results, ({ section }) => section)].map(([section, all]) => [
      `${section}.svg`,
      renderSvg(all),
    ]),
  )

/** One result per line, so that two runs can be compared by eye. */
const toJson = ({ results, ...rest }: Report): string => {
  const head = JSON.stringify(rest, undefined, 2).slice(0, -2)
  const lines = results.map((result) =>
    JSON.stringify({
      ...result,
      rounds: result.rounds.map((value) => Number(value.toPrecision(4))),
    }),
  )
  return `${head},\n  "results": [\n    ${lines.join(',\n    ')}\n  ]\n}`
}
