/** Strict JSON: accepts only texts that every parser would read the same way. */

import { isUtf8 } from 'node:buffer'

/** A ServiceAccount token has four levels. */
const DEPTH_MAX = 16
/** In valid JSON: strings, with the colon that makes one a name, and brackets. */
const TOKENS = /("[^"\\]*(?:\\.[^"\\]*)*")([ \t\r\n]*:)?|[[\]{}]/g

/**
 * The value of a JSON text, or `undefined`. `JSON.parse` refuses a byte order mark, among others.
 * Also refused here:
 * - bytes that are not UTF-8, and lone surrogates: other parsers replace them (RFC 8725 §3.7);
 * - a name that appears twice in an object, however it is escaped: some parsers take the first one,
 *   some the last (RFC 7519 §4);
 * - more levels than another parser may be able to follow.
 */
export function parseStrictJson(bytes: Buffer): unknown {
  if (!isUtf8(bytes)) return undefined
  const text = bytes.toString('utf8')
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  return isUnambiguous(text) ? value : undefined
}

function isUnambiguous(text: string): boolean {
  /** The names of each open object; an empty set for an array, which has none. */
  const open: Set<string>[] = []
  for (const [token, string, colon] of text.matchAll(TOKENS)) {
    if (string === undefined) {
      if (token === ']' || token === '}') open.pop()
      else if (open.push(new Set()) > DEPTH_MAX) return false
      continue
    }
    const decoded = JSON.parse(string) as string
    if (!decoded.isWellFormed()) return false
    if (colon === undefined) continue
    const names = open.at(-1)
    if (names?.has(decoded) === true) return false
    names?.add(decoded)
  }
  return true
}
