/** What was thrown, as an error or in words: JavaScript throws anything. */

export const asError = (reason: unknown): Error =>
  reason instanceof Error ? reason : new Error(String(reason))

/** A name has few addresses, each of which fails in its own way. */
const REASONS_MAX = 4

/** What Node adds to an untrusted certificate: advice on a flag of `node`, which no operator sets. */
const NODE_ADVICE = /; if the root CA is installed locally.*$/

/** Its message; without one those of the errors it stands for, or its name. */
export const messageOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  if (error.message !== '') return error.message.replace(NODE_ADVICE, '')
  const reasons = error instanceof AggregateError ? error.errors.slice(0, REASONS_MAX) : []
  return reasons.map(messageOf).join('; ') || error.name
}
