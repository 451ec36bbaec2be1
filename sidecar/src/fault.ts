/** Faults: something failed, so nobody could decide whether the worker may enter. */

import type { Code } from './denial.ts'

/**
 * A fault thrown by `kube` and `tunnel`, translated once into the retryable code it carries.
 * `message` and `cause` go only to our log; a client sees only the table's text for `code`.
 */
export class Fault extends Error {
  readonly code: Code

  constructor(code: Code, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'Fault'
    this.code = code
  }
}
