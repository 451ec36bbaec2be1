/** Gives the memory of a chunk back at once, when nobody needs its bytes any more. */

/**
 * Leaves `chunk` empty. One that is only a part of its memory shares it with others, as those of
 * Node's own pool do, and is left alone.
 */
export function giveBack(chunk: Buffer): void {
  const { buffer, byteLength } = chunk
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0)
}
