/** Text of strangers that a terminal can show as it is. */

/**
 * Everything but printable ASCII, as `\u{1b}`: a control character would move the cursor, a bidi one
 * would turn names round, and of others nobody knows how wide they are.
 */
export const escapeText = (text: string): string =>
  text.replaceAll(/[^\u0020-\u007e]/gu, (each) => `\\u{${each.codePointAt(0)?.toString(16)}}`)

/** JSON in which escapes stand for the same characters: in one line, or with this indentation. */
export const escapeJson = (value: unknown, indent?: number): string =>
  JSON.stringify(value, null, indent).replaceAll(
    /[^\u0020-\u007e\n]/g,
    (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
