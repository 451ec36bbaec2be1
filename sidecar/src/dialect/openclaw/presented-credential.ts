/** The gate for a worker's `connect`: checks its content before anybody else is asked. */

import { denied, granted, type Code, type Verdict } from '../../denial.ts'
import type { PresentedCredential } from '../dialect.ts'
import { findProofObjection } from './device-proof.ts'
import { PROTOCOL, type Challenge, type ConnectParams } from './frames.ts'

export type IntroductionTerms = {
  /** The challenge that was sent to this worker. */
  readonly challenge: Challenge
  /** The token presented at the upgrade, if any. */
  readonly shownToken: string | undefined
  readonly nowMs: number
  /** The oldest protocol that the gateway takes from a node. */
  readonly protocolMin: number
}

/** The only kind of client that is admitted, and the only role it may take. */
export const CLIENT_ID = 'node-host'
export const CLIENT_MODE = 'node'
export const ROLE = 'node'

/**
 * Returns the credential and role of a node's `connect`. Every `auth` member but `token` is
 * dropped: a worker must not present the gateway's own credentials.
 */
export function judgeConnect(
  params: ConnectParams,
  terms: IntroductionTerms,
): Verdict<PresentedCredential> {
  const objection =
    findRoleObjection(params, terms.protocolMin) ??
    findProofObjection(params, terms.challenge, terms.nowMs)
  if (objection !== undefined) return denied(objection)
  const { shownToken } = terms
  const token = params.auth?.token
  if (shownToken !== undefined && token !== undefined && token !== shownToken) {
    return denied('credential_mismatch')
  }
  const credential = shownToken ?? token
  if (credential === undefined) return denied('credential_missing')
  return granted({ token: credential, role: ROLE })
}

function findRoleObjection(params: ConnectParams, protocolMinOfGateway: number): Code | undefined {
  const { minProtocol, maxProtocol, role, scopes, client } = params
  if (minProtocol > Math.min(maxProtocol, PROTOCOL)) return 'protocol_mismatch'
  if (maxProtocol < protocolMinOfGateway) return 'protocol_mismatch'
  if (role === undefined) return 'role_missing'
  if (role !== ROLE) return 'role_not_allowed'
  // To the gateway a missing list is not the same as an empty one.
  if (scopes?.length !== 0) return 'scopes_not_allowed'
  if (client.id !== CLIENT_ID || client.mode !== CLIENT_MODE) return 'client_not_allowed'
  return undefined
}
