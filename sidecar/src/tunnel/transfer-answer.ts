/** Reads the gateway's answer to a transfer: what of it a worker may see, if it may see it at all. */

import type { IncomingMessage } from 'node:http'

export type TransferAnswer = {
  readonly incoming: IncomingMessage
  readonly status: number
  /** Names and values in turn. */
  readonly headers: readonly string[]
}

/** The longest body, in bytes. */
export const TRANSFER_BYTES_MAX = 4 * 1024 ** 3

/** Header fields that pass. A repeated one is joined where its value is a list, and else refused. */
const PASSED = [
  'Content-Type',
  'Content-Length',
  'Content-Encoding',
  'Cache-Control',
  'Vary',
  'Retry-After',
  'X-OpenClaw-Content-Sha256',
] as const
const LISTS: ReadonlySet<string> = new Set(['Cache-Control', 'Vary'])
const VALUE = /^[\x20-\x7e]{1,1024}$/
const LENGTH = /^\d{1,16}$/
const NO_CONTENT = 204

/**
 * `undefined` for an answer that must not pass: a redirect would send the worker elsewhere with its
 * credential, and without a length nobody could tell a whole body from part of one.
 */
export function readTransferAnswer(incoming: IncomingMessage): TransferAnswer | undefined {
  const { statusCode: status = 0, headersDistinct } = incoming
  const hasBody = status !== NO_CONTENT
  const isFit =
    isFinal(status) &&
    headersDistinct['transfer-encoding'] === undefined &&
    (!hasBody || isLength(headersDistinct['content-length']))
  const headers = isFit ? readHeaders(headersDistinct, status) : undefined
  return headers === undefined ? undefined : { incoming, status, headers }
}

const isFinal = (status: number): boolean =>
  (status >= 200 && status < 300) || (status >= 400 && status < 600)

function readHeaders(
  fields: IncomingMessage['headersDistinct'],
  status: number,
): readonly string[] | undefined {
  const headers: string[] = []
  for (const name of PASSED) {
    const values = fields[name.toLowerCase()]
    if (values === undefined) continue
    const value = values.join(', ')
    if ((values.length > 1 && !LISTS.has(name)) || !VALUE.test(value)) return undefined
    // A 204 has none (RFC 9110 §8.6).
    if (status !== NO_CONTENT || name !== 'Content-Length') headers.push(name, value)
  }
  return headers
}

const isLength = (values: readonly string[] | undefined): boolean =>
  values?.length === 1 && LENGTH.test(values[0] ?? '') && Number(values[0]) <= TRANSFER_BYTES_MAX
