/** What simulated days have shown: sections of docs/reliability.md, each written by its own run. */

import { readFileSync, writeFileSync } from 'node:fs'
import {
  readDate,
  readSection as readSectionOf,
  rewriteSection,
  table,
  today,
  type Place,
  type Section,
} from '../kit/result-page.ts'

const PAGE = new URL('../../docs/reliability.md', import.meta.url)

/** What a run of days begins with. The overview reads it again. */
export const headOf = (days: number, broken: number): string =>
  `${today()}: ${days} days were played, and in ${broken} of them a promise was broken.`

const HEAD = /: (\d+) days were played, and in (\d+) of them/

const place: Place = {
  mark: 'simulated',
  overview: 'overview of simulated days',
  first: (page) => page.length,
  compareKeys: (one, other) => one.localeCompare(other, 'en', { numeric: true }),
  renderOverview: (sections) => {
    const runs = sections.map(({ key, text }) => {
      const [, days = '', broken = ''] = HEAD.exec(text) ?? []
      return [key, readDate(text), days, broken]
    })
    const sum = (column: number) => String(runs.reduce((n, run) => n + Number(run[column]), 0))
    return table(
      ['run', 'date', 'days', 'of them with a broken promise'],
      [...runs, ['all', '', sum(2), sum(3)]],
    )
  },
}

export const readSection = (key: string): string =>
  readSectionOf(readFileSync(PAGE, 'utf8'), place, key)

export const writeSection = (own: Section): void =>
  writeFileSync(PAGE, rewriteSection(readFileSync(PAGE, 'utf8'), place, own))
