/** `status`: shows what the running sidecar does: readiness, streams, refusals, ages. */

import { callAdmin, explainNoStatus, followEvents } from '../edge/admin-call.ts'
import type { Status } from '../edge/status.ts'
import { messageOf } from '../lib/errors.ts'
import { findSidecar } from './admin-origin.ts'
import { CONFIG_OPTIONS, readArguments } from './arguments.ts'
import { EXIT, runCommand, type CommandContext } from './command.ts'
import { escapeJson, escapeText } from './escape.ts'
import { COLUMNS_MIN, describeStatus } from './status-text.ts'

export const options = {
  ...CONFIG_OPTIONS,
  watch: { type: 'boolean', description: 'Show it again every second, until it is interrupted.' },
  json: { type: 'boolean', description: 'Print it as JSON, in one line.' },
} as const

/** For an answer, and between two events, in milliseconds. */
const DEADLINE_MS = 5000
const STATUS_BYTES_MAX = 1024 * 1024
/** Home; and to the end of the line, and of the screen: redrawn in place, nothing flickers. */
const TO_TOP = '\u001b[H'
const CLEAR_LINE = '\u001b[K'
const CLEAR_BELOW = '\u001b[J'

/** Exits 0, or 69 when no sidecar shows its status. With `--watch` a signal ends it. */
export const run = (context: CommandContext): Promise<number> =>
  runCommand(context, { name: 'status', options }, async () => {
    const { watch = false, json = false } = readArguments(context.argv, options)
    const { origin } = findSidecar(context, options)
    const { clock, stderr } = context
    const call = { origin, deadlineMs: DEADLINE_MS, bytesMax: STATUS_BYTES_MAX, clock }
    const show = json === true ? showJson : watch === true ? redraw : showText
    try {
      if (watch === true) {
        for await (const text of followEvents({ ...call, path: '/events' })) {
          if (context.stdout.isBroken === true) return EXIT.ok
          show(context, parse(text))
        }
        throw new Error('the sidecar has closed the connection')
      }
      const { status, text } = await callAdmin({ ...call, method: 'GET', path: '/status' })
      if (status !== 200) throw new Error(explainNoStatus(origin, { status, text }))
      show(context, parse(text))
      return EXIT.ok
    } catch (error) {
      stderr.write(`No status: ${origin}: ${escapeText(messageOf(error))}\n`)
      return EXIT.dependency
    }
  })

const showJson = ({ stdout }: CommandContext, status: Status): void =>
  void stdout.write(`${escapeJson(status)}\n`)

const showText = (context: CommandContext, status: Status): void =>
  void context.stdout.write(`${linesOf(context, status).join('\n')}\n`)

/** In place on a terminal, cut to its height; otherwise one below the other. */
function redraw(context: CommandContext, status: Status): void {
  const { stdout, terminal } = context
  const lines = linesOf(context, status)
  const rows = terminal?.().rows
  if (rows === undefined) {
    stdout.write(`${lines.join('\n')}\n\n`)
    return
  }
  const room = Math.max(1, rows - 1)
  const isCut = lines.length > room
  const shown = isCut
    ? [...lines.slice(0, room - 1), `and ${lines.length - room + 1} lines more`]
    : lines
  stdout.write(`${TO_TOP}${shown.map((line) => `${line}${CLEAR_LINE}\n`).join('')}${CLEAR_BELOW}`)
}

const linesOf = ({ terminal }: CommandContext, status: Status): readonly string[] =>
  describeStatus(status, Math.max(COLUMNS_MIN, terminal?.().columns ?? 0))

function parse(text: string): Status {
  const found = orUndefined(() => JSON.parse(text) as Partial<Status> | null)
  if (typeof found?.isReady !== 'boolean' || !Array.isArray(found.checks)) {
    throw new Error('the server there is not the sidecar')
  }
  return found as Status
}

function orUndefined<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
