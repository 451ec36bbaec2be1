/** The form of a session-hosting request: one method, one path, few headers, a body of known length. */

import type { IncomingMessage } from 'node:http'
import { findHeaderCredential } from '../authn/credential.ts'
import { holdsToken } from '../authn/token-shape.ts'
import { denied, granted, type Code, type Verdict } from '../denial.ts'
import { findHostingRoute, type HostingRoute } from '../dialect/openclaw/hosting-routes.ts'
import { TRANSFER_BYTES_MAX } from '../tunnel/transfer-answer.ts'
import type { HostedCall } from '../tunnel/headers.ts'
import { HEADERS_MAX, type RequestHead } from './upgrade.ts'

export type HostedRequest = HostedCall & {
  readonly route: HostingRoute
  /** The pod's token, if the request has one. */
  readonly token: string | undefined
}

/** Bearer tokens as in RFC 6750 §2.1. */
const AUTHORIZATION = /^bearer [A-Za-z0-9\-._~+/]{1,1024}=*$/i
const FIELD_VALUE = /^[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?$/
const LENGTH = /^\d{1,16}$/

/** Each would change what the body is, or who has to answer. */
const FORBIDDEN = ['transfer-encoding', 'expect', 'trailer', 'te']

/**
 * The hosting route whose path a request has: `undefined` for everything else. An upgrade on a
 * route without one has a route too, so that it can be refused as such.
 */
export function findRequestedRoute(
  { method, url: target }: Pick<IncomingMessage, 'method' | 'url'>,
  isUpgrade: boolean,
): HostingRoute | undefined {
  const line = { method, target }
  const route = findHostingRoute({ ...line, isUpgrade })
  return route ?? (isUpgrade ? findHostingRoute({ ...line, isUpgrade: false }) : undefined)
}

/** Reads a request that has the path of `route`. */
export function readHostedRequest(
  request: RequestHead,
  route: HostingRoute,
  credentialHeader: string,
): Verdict<HostedRequest> {
  const objection = findFormObjection(request, route)
  if (objection !== undefined) return denied(objection)
  const credential = findHeaderCredential(request.rawHeaders, credentialHeader)
  if (!credential.ok) return credential
  const { method = '', url: target = '', headersDistinct: headers } = request
  const length = headers['content-length']?.[0]
  return granted({
    route,
    method,
    target,
    token: credential.value?.token,
    authorization: headers['authorization']?.[0],
    contentType: headers['content-type']?.[0],
    contentLength: length === undefined ? undefined : Number(length),
    acceptEncoding: headers['accept-encoding']?.[0],
  })
}

function findFormObjection(request: RequestHead, route: HostingRoute): Code | undefined {
  const { headersDistinct: headers } = request
  if (request.rawHeaders.length > 2 * HEADERS_MAX) return 'head_too_large'
  // No browser hosts sessions, and a page must not use the address it shares with a pod.
  if (headers['origin'] !== undefined) return 'origin_not_allowed'
  const hasUpgrade = headers['upgrade'] !== undefined
  const isFit =
    request.httpVersion === '1.1' &&
    hasUpgrade === (route === 'worker') &&
    FORBIDDEN.every((name) => headers[name] === undefined) &&
    headers['host']?.length === 1 &&
    isAbsentOr(headers['authorization'], isGatewayCredential) &&
    isAbsentOr(headers['content-type'], isFieldValue) &&
    isAbsentOr(headers['accept-encoding'], isFieldValue)
  return isFit ? findLengthObjection(headers['content-length'], route) : 'session_hosting_malformed'
}

/** Only a body has a length: one server must not read a body where the other reads none. */
function findLengthObjection(
  lengths: readonly string[] | undefined,
  route: HostingRoute,
): Code | undefined {
  const isFit =
    route === 'reconciliation'
      ? lengths?.length === 1 && LENGTH.test(lengths[0] ?? '')
      : lengths === undefined
  if (!isFit) return 'session_hosting_malformed'
  return Number(lengths?.[0] ?? 0) > TRANSFER_BYTES_MAX ? 'transfer_too_large' : undefined
}

const isAbsentOr = (
  values: readonly string[] | undefined,
  isFit: (value: string) => boolean,
): boolean => values === undefined || (values.length === 1 && isFit(values[0] ?? ''))

/** A token of the cluster in the wrong header must not reach the gateway. */
const isGatewayCredential = (value: string): boolean =>
  AUTHORIZATION.test(value) && !holdsToken(value)

const isFieldValue = (value: string): boolean => FIELD_VALUE.test(value)
