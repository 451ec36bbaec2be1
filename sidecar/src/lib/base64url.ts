/** Base64url without padding, of which each value has exactly one spelling (RFC 4648 §3.5, §5). */

/**
 * `undefined` unless the text is what its own bytes are encoded to. Node's decoder also takes the
 * other alphabet, padding, blanks, and bits of the last character that no byte is made of: with them
 * one token has sixteen spellings, and each would be a token of its own to a cache.
 */
export function decodeBase64url(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}
