/** Where a running sidecar writes: the audit to standard output, the log to standard error. */

import { constants, fstatSync, openSync, writeSync } from 'node:fs'
import { isatty } from 'node:tty'
import type { Clock } from '../lib/clock.ts'
import { LineOutput } from '../observe/line-output.ts'
import { createLog, type Log } from '../observe/log.ts'
import type { LinesDropped } from '../observe/metric-sources.ts'

export type Outputs = {
  readonly log: Log
  readonly writeAudit: (line: string) => void
  readonly linesDropped: () => LinesDropped
  /** Waits for slow readers, but for no longer than `ms`. */
  readonly finish: (ms: number) => Promise<void>
  /** The last attempt, as the process exits. */
  readonly flush: () => void
}

/** The most bytes that may wait for a slow reader; beyond that new lines are dropped. */
const AUDIT_BYTES_MAX = 8 * 1024 * 1024
const LOG_BYTES_MAX = 256 * 1024
/** How long an audit line may wait for others to be written with it, in milliseconds. */
const AUDIT_DELAY_MS = 100

export function openOutputs(level: string, clock: Clock): Outputs {
  const logOutput = new LineOutput({
    write: writerOf(2),
    clock,
    bytesMax: LOG_BYTES_MAX,
    delayMs: 0,
    // There is nowhere else to report it; the metric counts it.
    onLoss: () => {},
    onRecovered: (lines) => reportRecovery('log', lines),
  })
  const log = createLog(level, logOutput)
  const audit = new LineOutput({
    write: writerOf(1),
    clock,
    bytesMax: AUDIT_BYTES_MAX,
    delayMs: AUDIT_DELAY_MS,
    onLoss: (code) => log.error({ output: 'audit', code }, 'lines are being dropped'),
    onRecovered: (lines) => reportRecovery('audit', lines),
  })
  const reportRecovery = (output: keyof LinesDropped, lines: number) =>
    log.error({ output, lines }, 'lines were dropped; writing works again')
  return {
    log,
    writeAudit: (line) => audit.write(line),
    linesDropped: () => ({ audit: audit.lost, log: logOutput.lost }),
    async finish(ms) {
      // The clock's timers do not keep the process alive: it would exit here with 0.
      const keepAlive = setInterval(() => {}, ms)
      await Promise.all([audit.finish(ms), logOutput.finish(ms)])
      clearInterval(keepAlive)
    },
    flush() {
      audit.flush()
      const { waiting } = audit
      if (waiting > 0) log.error({ output: 'audit', lines: waiting }, 'lines were lost at exit')
      logOutput.flush()
    },
  }
}

function writerOf(fd: 1 | 2): (bytes: Uint8Array) => number {
  const own = openNonBlocking(fd)
  return (bytes) => writeSync(own, bytes)
}

/**
 * A write to a pipe, a socket or a terminal that nobody reads must fail rather than block. The
 * flag for that belongs to the open file description, which other processes can share. If the
 * kernel opens a new one for us, they are not affected. A user without permission to open the
 * pipe, as in a container, gets the flag through Node, which sets it when it makes a stream of the
 * descriptor.
 */
function openNonBlocking(fd: 1 | 2): number {
  if (fstatSync(fd).isFIFO() || isatty(fd)) {
    try {
      const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants
      return openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK | O_NOCTTY)
    } catch {
      // As above.
    }
  }
  const stream = fd === 1 ? process.stdout : process.stderr
  // Nothing is ever written to it.
  stream.on('error', () => {})
  return fd
}
