/** Parses the JSON of a peer that has proven nothing yet. */

/** Values, members and list items, that a first message may hold. A node's largest has under 2000. */
const VALUES_MAX = 3072
/** Each value but the first follows one of these. */
const BEFORE_VALUE = [',', '[', '{']

/**
 * `undefined` for what is not JSON, and for more values than a real message has: objects of many
 * members and deep nesting cost `JSON.parse` and the schemas fifty times what plain text costs. The
 * characters are counted in strings too, since only a parser could tell the difference.
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
