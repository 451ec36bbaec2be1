/** Records the demo as `docs/demo.cast` (asciicast v2) and draws it as `docs/demo.svg`, for the README. */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const [WIDTH, HEIGHT] = [80, 26]
/** The demo says everything at once; a reader needs time. */
const SECONDS_PER_LINE = 0.35
const SECONDS_PER_PARAGRAPH = 0.9
const SECONDS_AT_THE_END = 8
/** Drawn by a program that is not one of our dependencies: it is needed here and now only. */
const DRAW = ['--yes', 'svg-term-cli@2.1.1', '--window', '--no-cursor']

/** What a terminal shows of the demo, in color. */
const play = (): string =>
  execFileSync('script', ['--quiet', '--return', '--command', DEMO, '/dev/null'], {
    cwd: ROOT,
    encoding: 'utf8',
    env: { ...process.env, NO_COLOR: '' },
  })
const DEMO = `${process.execPath} test/demo/main.ts --once`

/** Without the chapter that is about typing, which a recording cannot do. */
const withoutInvitation = (text: string): string =>
  text.replace(/\r\n\S{4}10 {2}Look around[^]*?(?=\r\n\S{4}11 {2})/, '')

/** Paragraphs appear as a whole, each after the time that the one before takes to read. */
const toEvents = (text: string): readonly (readonly [number, 'o', string])[] => {
  let at = 0
  return text.split(/(?<=\r\n)(?=\r\n)/).map((paragraph) => {
    const event = [Number(at.toFixed(2)), 'o', paragraph] as const
    const lines = paragraph.split('\r\n').length - 2
    at += SECONDS_PER_PARAGRAPH + SECONDS_PER_LINE * Math.max(0, lines)
    return event
  })
}

const events = toEvents(withoutInvitation(play()))
const end = [(events.at(-1)?.[0] ?? 0) + SECONDS_AT_THE_END, 'o', ''] as const
const header = { version: 2, width: WIDTH, height: HEIGHT, title: 'npm run demo' }
const cast = [header, ...events, end].map((line) => `${JSON.stringify(line)}\n`).join('')
writeFileSync(`${ROOT}/docs/demo.cast`, cast)
const size = ['--width', String(WIDTH), '--height', String(HEIGHT)]
const files = ['--in', 'docs/demo.cast', '--out', 'docs/demo.svg']
execFileSync('npx', [...DRAW, ...size, ...files], {
  cwd: ROOT,
  stdio: ['ignore', 'ignore', 'inherit'],
})
