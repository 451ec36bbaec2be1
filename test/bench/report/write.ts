/** Writes a report: the figures as JSON, the plots, and the page if there is one. */

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fillPage } from './page.ts'
import { renderPeers } from './peers-page.ts'
import type { Report } from './report.ts'
import { renderSvg } from './svg.ts'

const FIGURES = 'figures.json'
const PAGE = 'README.md'
const PEERS_FIGURES = 'peers.json'
const PEERS_PAGE = 'peers.md'

export const writeReport = (directory: string, report: Report): void => {
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, FIGURES), `${toJson(report)}\n`)
  render(directory)
}

/** Writes the figures of a run beside other products, and the page that is made of them alone. */
export const writePeers = (directory: string, report: Report): void => {
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, PEERS_FIGURES), `${toJson(report)}\n`)
  // Of the figures as kept, so that the page can be made again.
  writeFileSync(join(directory, PEERS_PAGE), renderPeers(readPeers(directory)))
}

export const readPeers = (directory: string): Report => read(join(directory, PEERS_FIGURES))

/** Makes plots and pages again from the stored figures. */
export const render = (directory: string): void => {
  const report = readReport(directory)
  for (const [name, text] of renderPlots(report)) writeFileSync(join(directory, name), text)
  const page = join(directory, PAGE)
  if (existsSync(page)) writeFileSync(page, fillPage(readFileSync(page, 'utf8'), report))
  if (!existsSync(join(directory, PEERS_FIGURES))) return
  writeFileSync(join(directory, PEERS_PAGE), renderPeers(readPeers(directory)))
}

export const readReport = (directory: string): Report => read(join(directory, FIGURES))

const read = (file: string): Report => JSON.parse(readFileSync(file, 'utf8')) as Report

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
