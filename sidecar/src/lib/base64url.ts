/** Base64url without padding, where each value has exactly one spelling (RFC 4648 §3.5, §5). */

/**
 * `undefined` unless the text is exactly the encoding of its own bytes. Node's decoder also accepts
 * the other alphabet, padding, whitespace, and trailing bits in the last character that belong to
 * no byte. One token would then have sixteen spellings, and a cache would take each for a different
 * token.
 */
export function decodeBase64url(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}
