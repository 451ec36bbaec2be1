/** Judges a gateway's answer to an upgrade, strictly: only a perfect 101 opens a tunnel. */

import { acceptKeyOf } from './accept-key.ts'

export type AwaitedAnswer = {
  /** The `Sec-WebSocket-Key` that was sent. */
  readonly key: string
  /** The offered subprotocols; an answer may choose one of them, or none. */
  readonly subprotocols: readonly string[]
}

export type Answer =
  | { readonly ok: true; readonly subprotocol: string | undefined }
  /** `reason` is for our log; of the gateway's answer it quotes only the status. */
  | { readonly ok: false; readonly reason: string; readonly refusal?: HttpRefusal }

/** An answer in HTTP with another status than 101. */
export type HttpRefusal = {
  readonly status: number
  /** Of its body, in bytes; `undefined` where it does not say. */
  readonly contentLength: number | undefined
  /** Whether the body comes in chunks (RFC 9112 §7.1); it has no length then. */
  readonly isChunked: boolean
}

const STATUS_LINE = /^HTTP\/1\.1 (\d{3})(?: [\t\x20-\x7e\x80-\xff]*)?$/
/**
 * The spaces around the value are trimmed separately: matching them in this pattern takes cubic
 * time.
 */
const FIELD_LINE = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)$/

/** Headers that must not appear in a 101: with any of them, two parsers could disagree on the stream. */
const FORBIDDEN = ['content-length', 'transfer-encoding', 'sec-websocket-extensions']

/** Headers that must not appear twice, since a second one could contradict the first. */
const SINGLE = ['upgrade', 'sec-websocket-accept', 'sec-websocket-protocol']

/** `head` is the answer without its empty line, read as latin1. */
export function judgeResponseHead(head: string, awaited: AwaitedAnswer): Answer {
  const [statusLine = '', ...lines] = head.split('\r\n')
  const status = STATUS_LINE.exec(statusLine)?.[1]
  if (status === undefined) return refuse('the gateway did not answer in HTTP/1.1')
  const fields = parseFields(lines)
  if (status !== '101') {
    const reason = `the gateway answered ${status}`
    return { ok: false, reason, refusal: { status: Number(status), ...bodyIn(fields) } }
  }
  if (fields === undefined) return refuse('a header of the 101 is malformed')
  const fault = findFault(fields, awaited)
  if (fault !== undefined) return refuse(fault)
  return { ok: true, subprotocol: fields.get('sec-websocket-protocol')?.[0] }
}

const refuse = (reason: string): Answer => ({ ok: false, reason })

type Fields = ReadonlyMap<string, readonly string[]>

const LENGTH = /^\d{1,9}$/

/** Chunks come before a length (RFC 9112 §6.3). */
function bodyIn(fields: Fields | undefined): Omit<HttpRefusal, 'status'> {
  const codings = fields?.get('transfer-encoding')?.join(',').split(',') ?? []
  const isChunked = codings.at(-1)?.trim().toLowerCase() === 'chunked'
  const [length = ''] = fields?.get('content-length') ?? []
  const isKnown = !isChunked && LENGTH.test(length)
  return { contentLength: isKnown ? Number(length) : undefined, isChunked }
}

/**
 * Folded lines (obsolete since RFC 7230), stray CR or LF and control characters match no field
 * line.
 */
function parseFields(lines: readonly string[]): Fields | undefined {
  const fields = new Map<string, string[]>()
  for (const line of lines) {
    const [, name, value] = FIELD_LINE.exec(line) ?? []
    if (name === undefined || value === undefined) return undefined
    const key = name.toLowerCase()
    const values = fields.get(key)
    if (values === undefined) fields.set(key, [trimBlanks(value)])
    else values.push(trimBlanks(value))
  }
  return fields
}

/** Trims only spaces and tabs (RFC 9110 §5.6.3): on latin1 text `trim` would remove more. */
function trimBlanks(value: string): string {
  let start = 0
  let end = value.length
  while (start < end && isBlank(value, start)) start += 1
  while (end > start && isBlank(value, end - 1)) end -= 1
  return value.slice(start, end)
}

const isBlank = (text: string, at: number): boolean => text[at] === ' ' || text[at] === '\t'

function findFault(fields: Fields, awaited: AwaitedAnswer): string | undefined {
  const forbidden = FORBIDDEN.find((name) => fields.has(name))
  if (forbidden !== undefined) return `the 101 carries ${forbidden}`
  const repeated = SINGLE.find((name) => (fields.get(name)?.length ?? 0) > 1)
  if (repeated !== undefined) return `the 101 repeats ${repeated}`
  return findHandshakeFault(fields, awaited)
}

/** The client's checks in RFC 6455 §4.1. */
function findHandshakeFault(fields: Fields, awaited: AwaitedAnswer): string | undefined {
  const first = (name: string): string | undefined => fields.get(name)?.[0]
  if (first('upgrade')?.toLowerCase() !== 'websocket')
    return 'the 101 does not upgrade to websocket'
  if (!namesUpgrade(fields.get('connection') ?? [])) return 'the 101 has no Connection: upgrade'
  if (first('sec-websocket-accept') !== acceptKeyOf(awaited.key))
    return 'the 101 has a wrong Sec-WebSocket-Accept'
  const chosen = first('sec-websocket-protocol')
  if (chosen !== undefined && !awaited.subprotocols.includes(chosen)) {
    return 'the 101 selects a subprotocol that was not offered'
  }
  return undefined
}

function namesUpgrade(connection: readonly string[]): boolean {
  const options = connection.join(',').split(',')
  return options.some((option) => option.trim().toLowerCase() === 'upgrade')
}
