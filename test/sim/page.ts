/** What simulated days have shown: sections of docs/reliability.md, each written by its own run. */

import { readFileSync, writeFileSync } from 'node:fs'
import {
  readDate,
  readSection as readSectionOf,
  rewriteSection,
  table,
  type Place,
  type Section,
} from '../kit/result-page.ts'

const PAGE = new URL('../../docs/reliability.md', import.meta.url)

const place: Place = {
  mark: 'simulated',
  overview: 'overview of simulated days',
  first: (page) => page.length,
  compareKeys: (one, other) => one.localeCompare(other, 'en', { numeric: true }),
  renderOverview: (sections) =>
    table(
      ['run', 'date'],
      sections.map(({ key, text }) => [key, readDate(text)]),
    ),
}

export const readSection = (key: string): string =>
  readSectionOf(readFileSync(PAGE, 'utf8'), place, key)

export const writeSection = (own: Section): void =>
  writeFileSync(PAGE, rewriteSection(readFileSync(PAGE, 'utf8'), place, own))
