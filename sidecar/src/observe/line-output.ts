/** A bounded queue of lines in front of a descriptor that may be full, blocked or broken. */

import type { Clock } from '../lib/clock.ts'

export type LineOutputOptions = {
  /** Writes without blocking; returns how many bytes were taken, or throws the system's error. */
  readonly write: (bytes: Uint8Array) => number
  readonly clock: Clock
  /** Lines beyond this many waiting bytes are dropped. */
  readonly bytesMax: number
  /**
   * How long a line may wait to be written together with others, in milliseconds; 0 for no wait.
   */
  readonly delayMs: number
  /** Lines are being dropped from now on. Called once until `onRecovered`. */
  readonly onLoss: (code: string) => void
  /** All waiting lines are written; `lines` were dropped in between. */
  readonly onRecovered: (lines: number) => void
}

/**
 * The most bytes of lines written together. POSIX writes up to this many bytes to a pipe either
 * completely or not at all (PIPE_BUF), so a pipe shared by both outputs never mixes their lines.
 */
const CHUNK_BYTES_MAX = 4096
/** How soon a full output is tried again, in milliseconds; the wait doubles after each failure. */
const RETRY_MS_MIN = 10
const RETRY_MS_MAX = 250
/** The system's error code for a full pipe or socket. */
const FULL = 'EAGAIN'
const NEWLINE = 0x0a
const NONE = new Uint8Array()

type Chunk = { text: string; bytes: number; lines: number }

/**
 * Lines are written in order and complete. A full pipe (`EAGAIN`) makes them wait; any other error
 * drops them, since such an output may never work. A line that is already partly written is never
 * dropped: its rest is written before anything else.
 */
export class LineOutput {
  readonly #options: LineOutputOptions
  #chunks: Chunk[] = []
  /** Taken from the queue, and perhaps partly written. */
  #head: Uint8Array = NONE
  #isMidLine = false
  #waitingBytes = 0
  #lostTotal = 0
  #lostSinceRecovery = 0
  #cancelTimer: (() => void) | undefined
  /** 0 while the output accepts writes. */
  #retryMs = 0
  #onEmpty: (() => void) | undefined

  constructor(options: LineOutputOptions) {
    this.#options = options
  }

  /** Lines dropped since the start. */
  get lost(): number {
    return this.#lostTotal
  }

  /** Lines accepted and not yet written. */
  get waiting(): number {
    return this.#chunks.reduce((sum, { lines }) => sum + lines, countLines(this.#head))
  }

  /** Takes one line with its newline. Never blocks and never throws. */
  write(line: string): void {
    const bytes = Buffer.byteLength(line)
    if (this.#waitingBytes + bytes > this.#options.bytesMax) return this.#lose(1, FULL)
    this.#waitingBytes += bytes
    const last = this.#chunks.at(-1)
    if (last !== undefined && last.bytes + bytes <= CHUNK_BYTES_MAX) {
      last.text += line
      last.bytes += bytes
      last.lines += 1
    } else this.#chunks.push({ text: line, bytes, lines: 1 })
    // While the output is full, only its timer tries again.
    if (this.#retryMs > 0) return
    const { delayMs } = this.#options
    if (delayMs === 0) return this.#writeOut(0)
    if (this.#chunks.length > 1) this.#writeOut(1)
    if (this.#retryMs === 0) this.#armTimer(delayMs)
  }

  /** Tries to write everything now. */
  flush(): void {
    this.#writeOut(0)
  }

  /** Resolves when no line waits any more, written or dropped, and after `ms` at the latest. */
  async finish(ms: number): Promise<void> {
    this.flush()
    if (this.#waitingBytes === 0) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#onEmpty = resolve
    const cancel = this.#options.clock.after(ms, resolve)
    await promise
    cancel()
  }

  /** Writes until at most `keep` chunks are left or the output is full. */
  #writeOut(keep: number): void {
    let hasWritten = false
    try {
      while (this.#takeHead(keep)) {
        this.#writeHead()
        hasWritten = true
      }
    } catch (error) {
      this.#onFailure(codeOf(error))
      hasWritten = false
    }
    if (this.#waitingBytes > 0) return
    this.#stopTimer()
    this.#onEmpty?.()
    if (hasWritten) this.#onAllWritten()
  }

  #takeHead(keep: number): boolean {
    if (this.#head.length > 0) return true
    if (this.#chunks.length <= keep) return false
    this.#head = Buffer.from(this.#chunks.shift()?.text ?? '')
    return true
  }

  #writeHead(): void {
    const written = this.#options.write(this.#head)
    // No bytes and no error also means a full output.
    if (written === 0) throw Object.assign(new Error('nothing was written'), { code: FULL })
    this.#isMidLine = this.#head[written - 1] !== NEWLINE
    this.#head = this.#head.subarray(written)
    this.#waitingBytes -= written
    this.#retryMs = 0
  }

  #onFailure(code: string): void {
    if (code !== FULL) this.#dropWaiting(code)
    this.#stopTimer()
    if (this.#waitingBytes === 0) {
      this.#retryMs = 0
      return
    }
    this.#retryMs = Math.min(Math.max(this.#retryMs * 2, RETRY_MS_MIN), RETRY_MS_MAX)
    this.#armTimer(this.#retryMs)
  }

  #dropWaiting(code: string): void {
    const begun = this.#isMidLine ? this.#head.subarray(0, this.#head.indexOf(NEWLINE) + 1) : NONE
    const lost = this.waiting - countLines(begun)
    this.#head = begun
    this.#chunks = []
    this.#waitingBytes = begun.length
    this.#lose(lost, code)
  }

  #lose(lines: number, code: string): void {
    if (lines === 0) return
    const isFirst = this.#lostSinceRecovery === 0
    this.#lostTotal += lines
    this.#lostSinceRecovery += lines
    if (isFirst) this.#options.onLoss(code)
  }

  #onAllWritten(): void {
    const lines = this.#lostSinceRecovery
    if (lines === 0) return
    // Reset first: what the callback writes may come through here again.
    this.#lostSinceRecovery = 0
    this.#options.onRecovered(lines)
  }

  #armTimer(ms: number): void {
    this.#cancelTimer ??= this.#options.clock.after(ms, () => {
      this.#cancelTimer = undefined
      this.#writeOut(0)
    })
  }

  #stopTimer(): void {
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
  }
}

const countLines = (bytes: Uint8Array): number =>
  bytes.reduce((lines, byte) => (byte === NEWLINE ? lines + 1 : lines), 0)

const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : String(error)
