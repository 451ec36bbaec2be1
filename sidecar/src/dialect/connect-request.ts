/** The first frame of the `stream` dialect: `connect.request` and its answer. */

import * as z from 'zod'
import { denied, granted, type Code, type Verdict } from '../denial.ts'
import type { PresentedCredential } from './dialect.ts'
import { parseFirstJson } from './first-json.ts'

/** What a worker without a header credential must send first; other members are ignored. */
const CONNECT_REQUEST = z.object({
  type: z.literal('connect.request'),
  authMode: z.literal('k8s-sa'),
  saToken: z.string().min(1),
  role: z.string().min(1).max(64).optional(),
  /** Only an empty list is allowed: a worker never gets scopes. */
  scopes: z.array(z.unknown()).default([]),
})

/** Reads the frame. The role is required; the policy checks it. */
export function readConnectRequest(text: string): Verdict<PresentedCredential> {
  const parsed = CONNECT_REQUEST.safeParse(parseFirstJson(text))
  if (!parsed.success) return denied('frame_malformed')
  const { saToken, role, scopes } = parsed.data
  if (role === undefined) return denied('role_missing')
  if (scopes.length > 0) return denied('scopes_not_allowed')
  return granted({ token: saToken, role })
}

export const CONNECT_ACCEPTED = JSON.stringify({ type: 'connect.response', success: true })

export const connectRefused = (code: Code): string =>
  JSON.stringify({ type: 'connect.response', success: false, code })
