/** Reads why a gateway refused an upgrade: the `error.type` in the body of its answer. */

import { GatewayRefused } from '../gateway-refusal.ts'
import type { Clock } from '../lib/clock.ts'
import type { HttpRefusal } from '../websocket/response-head.ts'

export type RefusalReaderOptions = HttpRefusal & {
  readonly clock: Clock
  /** Called once, unless `end` or `stop` comes first. */
  readonly onRead: (refused: GatewayRefused) => void
}

/** A longer body is read up to here, and then says nothing. */
const BODY_BYTES_MAX = 4096
/** The status is known, so that the worker need not wait long for the reason. */
const BODY_MS_MAX = 500

/** What a status says without a body. */
const BY_STATUS: Readonly<Record<number, string>> = {
  401: 'unauthorized',
  429: 'rate_limited',
  503: 'service_unavailable',
}

const NOT_THE_GATEWAY =
  'It says no more. Check that gateway.url is the gateway, and a path where it serves WebSockets.'

export class RefusalReader {
  readonly #options: RefusalReaderOptions
  readonly #cancel: () => void
  #body = Buffer.alloc(0)

  constructor(options: RefusalReaderOptions) {
    this.#options = options
    this.#cancel = options.clock.after(BODY_MS_MAX, () => options.onRead(this.end()))
  }

  /** Takes the next bytes of the body. */
  read(chunk: Buffer): void {
    const { contentLength = BODY_BYTES_MAX, isChunked, onRead } = this.#options
    const lengthMax = Math.min(contentLength, BODY_BYTES_MAX)
    this.#body = Buffer.concat([this.#body, chunk.subarray(0, lengthMax - this.#body.length)])
    const isOver = isChunked && readChunks(this.#body).isOver
    if (isOver || this.#body.length >= lengthMax) onRead(this.end())
  }

  /** The refusal, from what was read. */
  end(): GatewayRefused {
    this.stop()
    const { isChunked, status } = this.#options
    const body = isChunked ? readChunks(this.#body).content : this.#body
    const what = `the gateway answered ${status}`
    const word = readType(body) ?? BY_STATUS[status]
    return word === undefined
      ? new GatewayRefused('other', what, NOT_THE_GATEWAY)
      : new GatewayRefused(word, what)
  }

  stop(): void {
    this.#cancel()
  }
}

const LINE_END = '\r\n'
/** A size in hexadecimal digits, and extensions, which mean nothing to us (RFC 9112 §7.1.1). */
const CHUNK_LINE = /^([0-9A-Fa-f]{1,8})[\t ]*(?:;|$)/

/** The content of the chunks so far; `isOver` after the last one, or where they are malformed. */
function readChunks(body: Buffer): { readonly content: Buffer; readonly isOver: boolean } {
  const chunks: Buffer[] = []
  let isOver = false
  let at = 0
  for (;;) {
    const end = body.indexOf(LINE_END, at)
    if (end === -1) break
    const size = Number.parseInt(CHUNK_LINE.exec(body.toString('latin1', at, end))?.[1] ?? '0', 16)
    isOver = size === 0
    if (isOver) break
    const start = end + LINE_END.length
    chunks.push(body.subarray(start, start + size))
    at = start + size + LINE_END.length
  }
  return { content: Buffer.concat(chunks), isOver }
}

function readType(body: Buffer): string | undefined {
  try {
    const { error } = JSON.parse(body.toString()) as { error?: { type?: unknown } }
    return typeof error?.type === 'string' ? error.type : undefined
  } catch {
    return undefined
  }
}
