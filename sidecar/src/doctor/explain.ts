/** Why the API server could not be asked, and what to do about it. */

import { Fault } from '../fault.ts'

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** What to do about a request that came to nothing; a `refusal` is where the API server said no. */
export function mendOf(error: unknown, refusal: string): string {
  if (error instanceof Fault && error.code === 'own_credential_refused') return refusal
  const code = codeOf(error)
  if (/CERT|ISSUER|SIGN|SSL|TLS/.test(code)) {
    return 'Check that kubernetes.caFile holds the CA of this API server.'
  }
  if (/^(ENOTFOUND|EAI_)/.test(code)) {
    return 'Check the host in kubernetes.apiServer, and the DNS of this pod.'
  }
  return 'Check kubernetes.apiServer, and that the network lets this pod reach it.'
}

/** The code of the innermost error that has one. */
function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return ''
  const own = 'code' in error ? String(error.code) : ''
  return codeOf(error.cause) || own
}
