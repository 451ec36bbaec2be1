/** Globs of the configuration: `*` stands for any run of characters and `?` for one. */

/** No wildcard matches one of these: a name with a line break in it matches no glob. */
const LINE_BREAK = /[\n\r\u2028\u2029]/

/** Whether the text has a wildcard. */
export const isGlob = (text: string): boolean => /[*?]/.test(text)

/**
 * A pattern without wildcards matches exactly. Names come from strangers, so a match takes at most
 * `pattern.length * name.length` steps: each literal between two `*` is searched for once, from
 * left to right, and never again because a later literal was not found.
 */
export function globMatcher(pattern: string): (name: string) => boolean {
  const literals = pattern.split(/\*+/)
  if (!isGlob(pattern)) return (name) => name === pattern
  const [first = '', ...middle] = literals
  const last = middle.pop()
  return (name) => {
    if (!isAt(name, first, 0) || LINE_BREAK.test(name)) return false
    if (last === undefined) return name.length === first.length
    // The last literal must be at the end of the name; the others must end before it.
    const end = name.length - last.length
    return end >= first.length && isAt(name, last, end) && hasInOrder(name, middle, first, end)
  }
}

/**
 * Whether the literals follow one another between `first` and `end`. Taking the earliest match is
 * best.
 */
function hasInOrder(
  name: string,
  literals: readonly string[],
  first: string,
  end: number,
): boolean {
  let at = first.length
  for (const literal of literals) {
    const found = find(name, literal, at)
    if (found === -1 || found + literal.length > end) return false
    at = found + literal.length
  }
  return true
}

function find(name: string, literal: string, from: number): number {
  if (!literal.includes('?')) return name.indexOf(literal, from)
  for (let at = from; at + literal.length <= name.length; at += 1) {
    if (isAt(name, literal, at)) return at
  }
  return -1
}

function isAt(name: string, literal: string, at: number): boolean {
  if (!literal.includes('?')) return name.startsWith(literal, at)
  if (at + literal.length > name.length) return false
  for (let index = 0; index < literal.length; index += 1) {
    const wanted = literal[index]
    if (wanted !== '?' && wanted !== name[at + index]) return false
  }
  return true
}
