/** A reporter for tap: a line for each test file, failures in full, and the totals. */

import { Transform, type TransformCallback } from 'node:stream'

/** What a file writes is kept until its result comes, to be shown if it failed: at most this much. */
const KEPT_CHARS_MAX = 1_000_000
const RESULT = /^(not )?ok \d+ - (.*?)(?: # time=([\d.]+)ms)?(?: \{)?$/
const TOTALS = /^(?:# \{|# time=|Bail out!)/
const FAILED = /^ *not ok /

/**
 * tap's reporters render the whole screen for each assertion, which costs more than many tests do.
 * tap starts this program and writes TAP to it: `--reporter=node --reporter-arg=FILE`.
 */
export class FileReporter extends Transform {
  #line = ''
  #kept: string[] = []
  #keptChars = 0
  /** The last file failed: what tap says of its process comes behind its result. */
  #isBehindFailure = false

  override _transform(chunk: Buffer | string, _: BufferEncoding, done: TransformCallback): void {
    const lines = (this.#line + chunk.toString()).split('\n')
    this.#line = lines.pop() ?? ''
    for (const line of lines) this.#take(line)
    done()
  }

  override _flush(done: TransformCallback): void {
    this.#take(this.#line)
    done()
  }

  #take(line: string): void {
    const [, failed, name = '', ms = ''] = RESULT.exec(line) ?? []
    if (name !== '') return this.#report(name, Number(ms), failed !== undefined)
    if (/^\S/.test(line)) this.#isBehindFailure = false
    if (this.#isBehindFailure || TOTALS.test(line)) this.push(`${line}\n`)
    if (this.#keptChars > KEPT_CHARS_MAX) return
    this.#kept.push(line)
    this.#keptChars += line.length
  }

  #report(name: string, ms: number, isFailed: boolean): void {
    this.push(`${isFailed ? 'FAIL' : 'PASS'}  ${name}  ${(ms / 1000).toFixed(1)} s\n`)
    if (isFailed) this.push(`${failuresIn(this.#kept).join('\n')}\n`)
    this.#isBehindFailure = isFailed
    this.#kept = []
    this.#keptChars = 0
  }
}

/** Each line that failed, with the indented diagnostics behind it. */
function failuresIn(lines: readonly string[]): readonly string[] {
  let depth = -1
  return lines.filter((line) => {
    if (FAILED.test(line)) {
      depth = line.search(/\S/)
      return true
    }
    const isBehind = depth >= 0 && (line.trim() === '' || line.search(/\S/) > depth)
    if (!isBehind) depth = -1
    return isBehind
  })
}

if (import.meta.main) process.stdin.pipe(new FileReporter()).pipe(process.stdout)
