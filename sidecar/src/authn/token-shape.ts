/** Detects a token in a text, in time linear in the text, since strangers choose the text. */

/** Any character but base64url and the dot ends a token. */
const TOKEN_RUN = /[A-Za-z0-9_.-]+/g
/** The first characters of `{"` in base64url. */
const JSON_START = 'eyJ'
/** A shorter text is not the header of a token. */
const HEADER_LENGTH_MIN = JSON_START.length + 8
/** A token in a URL within a URL is encoded twice. */
const DECODINGS = 2

/** Whether a query string holds a token, as is or percent-encoded once or twice. */
export function holdsToken(query: string): boolean {
  if (query === '') return false
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
    // The third part, the signature, may be empty: where it starts, the second part has ended.
    for (let at = 0; at + 2 < parts.length; at += 1) {
      if (endsInHeader(parts[at] ?? '') && parts[at + 1] !== '') return true
    }
  }
  return false
}

/** A part may start with something else, such as `token_`; only the length of the rest counts. */
function endsInHeader(part: string): boolean {
  const start = part.indexOf(JSON_START)
  return start >= 0 && part.length - start >= HEADER_LENGTH_MIN
}

function decodeLoosely(text: string): string {
  return text.replaceAll(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  )
}
