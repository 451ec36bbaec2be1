/** Parses JSON from a peer that has not proven anything yet. */

/** The most values, members and list items in a first message. A node's largest has under 2000. */
const VALUES_MAX = 3072
/** Each value except the first follows one of these. */
const BEFORE_VALUE = [',', '[', '{']

/**
 * `undefined` for a text that is not JSON or has more values than a real message: objects with many
 * members and deep nesting cost `JSON.parse` and the schemas fifty times as much as plain text. The
 * characters are also counted inside strings, since only a parser could tell the difference.
 */
export function parseFirstJson(text: string): unknown {
  if (!hasFewValues(text)) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function hasFewValues(text: string): boolean {
  let count = 1
  for (const character of BEFORE_VALUE) {
    let at = text.indexOf(character)
    for (; at >= 0 && count <= VALUES_MAX; at = text.indexOf(character, at + 1)) count += 1
  }
  return count <= VALUES_MAX
}
