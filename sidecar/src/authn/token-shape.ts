/** Tells whether a text has a token in it, in time linear in the text: strangers choose it. */

/** Everything but base64url and the dot ends a token. */
const TOKEN_RUN = /[A-Za-z0-9_.-]+/g
/** How the base64url of `{"` begins. */
const JSON_START = 'eyJ'
/** Shorter, it is not the header of a token. */
const HEADER_LENGTH_MIN = JSON_START.length + 8
/** A token in a URL within a URL is encoded twice. */
const DECODINGS = 2

/** Whether a query string holds a token, as it stands or percent-encoded once or twice. */
export function holdsToken(query: string): boolean {
  let text = query
  for (let decodings = 0; decodings < DECODINGS && text.includes('%'); decodings += 1) {
    if (hasTokenShape(text)) return true
    text = decodeLoosely(text)
  }
  return hasTokenShape(text)
}

function hasTokenShape(text: string): boolean {
  for (const [run] of text.matchAll(TOKEN_RUN)) {
    const parts = run.split('.')
    // The third part, the signature, may be empty; where it begins, the second one has ended.
    for (let at = 0; at + 2 < parts.length; at += 1) {
      if (endsInHeader(parts[at] ?? '') && parts[at + 1] !== '') return true
    }
  }
  return false
}

/** A part may begin with something else, such as `token_`; what counts is how long the rest is. */
function endsInHeader(part: string): boolean {
  const start = part.indexOf(JSON_START)
  return start >= 0 && part.length - start >= HEADER_LENGTH_MIN
}

function decodeLoosely(text: string): string {
  return text.replaceAll(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  )
}
