/** What was thrown, as an error or in words: JavaScript throws anything. */

export const asError = (reason: unknown): Error =>
  reason instanceof Error ? reason : new Error(String(reason))

/** Its message; the name of an error without one. */
export const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message || error.name : String(error)
