/** Credential carriers: where a worker may present its token at the upgrade, at most once. */

import { BEARER_SUBPROTOCOL, isBearerSubprotocol } from '../websocket/bearer-subprotocol.ts'
import { decodeBase64url } from '../lib/base64url.ts'
import { denied, granted, type Verdict } from '../denial.ts'

/** How a token is presented at the upgrade. */
type Carrier = 'authorization' | 'header' | 'cf_access' | 'subprotocol'

export type Credential = { readonly token: string }

/** The longest accepted token, in bytes. */
export const TOKEN_BYTES_MAX = 8 * 1024

const CF_ACCESS_HEADER = 'cf-access-client-secret'
const BEARER = /^bearer +(\S+)$/i
const TOKEN = /^[A-Za-z0-9\-._~+/]+=*$/

type PresentedToken = { readonly value: string; readonly carrier: Carrier }

/**
 * Finds the credential of an upgrade request. `rawHeaders` are Node's alternating names and values,
 * so that repeated headers stay visible. No credential is `undefined`; two credentials, or one
 * repeated, are `credential_repeated`.
 */
export function findCredential(
  rawHeaders: readonly string[],
  credentialHeader: string,
): Verdict<Credential | undefined> {
  const presented = listPresented(rawHeaders, credentialHeader.toLowerCase())
  if (presented.length > 1) return denied('credential_repeated')
  const [only] = presented
  if (only === undefined) return granted(undefined)
  return readToken(only)
}

/** Like `findCredential`, but only the configured header counts. */
export function findHeaderCredential(
  rawHeaders: readonly string[],
  credentialHeader: string,
): Verdict<Credential | undefined> {
  const presented = listPresented(rawHeaders, credentialHeader.toLowerCase()).filter(
    ({ carrier }) => carrier === 'header',
  )
  if (presented.length > 1) return denied('credential_repeated')
  const [only] = presented
  return only === undefined ? granted(undefined) : readToken(only)
}

/** Checks the size and the alphabet of a token from any carrier. */
export function acceptToken(token: string | undefined): Verdict<string> {
  if (token === undefined) return denied('credential_malformed')
  if (token.length > TOKEN_BYTES_MAX) return denied('credential_too_large')
  if (!TOKEN.test(token)) return denied('credential_malformed')
  return granted(token)
}

function listPresented(
  rawHeaders: readonly string[],
  credentialHeader: string,
): readonly PresentedToken[] {
  const presented: PresentedToken[] = []
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const name = (rawHeaders[index] ?? '').toLowerCase()
    const value = rawHeaders[index + 1] ?? ''
    if (name === 'authorization') presented.push({ value, carrier: 'authorization' })
    else if (name === credentialHeader) presented.push({ value, carrier: 'header' })
    else if (name === CF_ACCESS_HEADER) presented.push({ value, carrier: 'cf_access' })
    else if (name === 'sec-websocket-protocol') presented.push(...listSubprotocolTokens(value))
  }
  return presented
}

const listSubprotocolTokens = (value: string): readonly PresentedToken[] =>
  value
    .split(',')
    .map((offer) => offer.trim())
    .filter(isBearerSubprotocol)
    .map((offer) => ({ value: offer.slice(BEARER_SUBPROTOCOL.length), carrier: 'subprotocol' }))

function readToken({ value, carrier }: PresentedToken): Verdict<Credential> {
  const token = acceptToken(extract(value, carrier))
  return token.ok ? granted({ token: token.value }) : token
}

function extract(value: string, carrier: Carrier): string | undefined {
  switch (carrier) {
    case 'authorization':
      return BEARER.exec(value)?.[1]
    case 'subprotocol':
      return decodeBase64url(value)?.toString('latin1')
    case 'header':
    case 'cf_access':
      return value
  }
}
