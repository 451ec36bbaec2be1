/** Results as bars: one plot per section, in which each case has its own scale. */

import { median, type Result } from '../results.ts'
import { figure } from './figures.ts'
import { pivot, type Table } from './pivot.ts'

const WIDTH = 760
const LABELS = 150
const BARS = 460
const ROW = 18
const BAR = 12
const GAP = 10
const HEADING = 34
const TITLE = 22

const OURS = '#1f6feb'
const THEIRS = '#9aa4af'
const WHISKER = '#24292f'

type Drawn = { readonly text: string; readonly height: number }

export const renderSvg = (results: readonly Result[]): string => {
  let y = GAP
  const parts: string[] = []
  for (const table of pivot(results)) {
    const { text, height } = drawTable(table, y)
    parts.push(text)
    y += height
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${y}" fill="#ffffff"/>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n')
}

const drawTable = ({ name, unit, peers, rows }: Table, top: number): Drawn => {
  const heading = `<text x="${GAP}" y="${top + 18}" font-size="14" font-weight="bold">${escape(`${name} (${unit})`)}</text>`
  let y = top + HEADING
  const parts = [heading]
  for (const row of rows) {
    const cells = row.cells.flatMap((cell, at) => (cell === undefined ? [] : [{ cell, at }]))
    const largest = Math.max(...cells.flatMap(({ cell }) => cell.rounds))
    parts.push(`<text x="${GAP}" y="${y + 12}" font-weight="bold">${escape(row.name)}</text>`)
    y += TITLE
    for (const { cell, at } of cells) {
      parts.push(drawBar(peers[at] ?? '', cell.rounds, { y, largest }))
      y += ROW
    }
    y += GAP
  }
  return { text: parts.join('\n'), height: y - top + GAP }
}

/** A bar as long as the median, and a line from the lowest round to the highest. */
const drawBar = (
  peer: string,
  rounds: readonly number[],
  { y, largest }: { readonly y: number; readonly largest: number },
): string => {
  const at = (value: number): string => (LABELS + Math.max(0, (value / largest) * BARS)).toFixed(1)
  const value = median(rounds)
  const length = Math.max(0, (value / largest) * BARS).toFixed(1)
  const middle = y + BAR / 2
  const end = Math.max(...rounds)
  return [
    `<text x="${LABELS - 6}" y="${y + 10}" text-anchor="end">${escape(peer)}</text>`,
    `<rect x="${LABELS}" y="${y}" width="${length}" height="${BAR}" fill="${peer === 'sidecar' ? OURS : THEIRS}"/>`,
    `<line x1="${at(Math.min(...rounds))}" x2="${at(end)}" y1="${middle}" y2="${middle}" stroke="${WHISKER}"/>`,
    `<text x="${(Number(at(end)) + 6).toFixed(1)}" y="${y + 10}">${figure(value)}</text>`,
  ].join('')
}

const escape = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
