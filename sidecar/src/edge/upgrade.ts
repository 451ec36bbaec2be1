/** Upgrade validation: what may become a WebSocket (RFC 6455 §4.2.1), and nothing looser. */

import type { IncomingMessage } from 'node:http'
import { isBearerSubprotocol } from '../websocket/bearer-subprotocol.ts'
import { holdsToken } from '../authn/token-shape.ts'
import { denied, granted, type Code, type Verdict } from '../denial.ts'

/** What is kept of an upgrade request; the rest is never read again. */
export type UpgradeRequest = {
  /** `Sec-WebSocket-Key`, 16 bytes in base64. */
  readonly key: string
  /** The offered subprotocols in the worker's order, without any that carries a credential. */
  readonly subprotocols: readonly string[]
  readonly role: string | undefined
  readonly hasOrigin: boolean
  readonly userAgent: string | undefined
  readonly traceparent: string | undefined
  /** Without the query, which may hold secrets that must not be logged. */
  readonly path: string
}

export type RequestHead = Pick<
  IncomingMessage,
  'method' | 'httpVersion' | 'url' | 'rawHeaders' | 'headersDistinct'
>

/** The most headers of a request: each uses memory until the request is refused or admitted. */
export const HEADERS_MAX = 256

const KEY = /^[+/0-9A-Za-z]{22}==$/
const HTTP_TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const TARGET_LENGTH_MAX = 4096
/**
 * Encoded dots and slashes, backslashes, parameters and empty segments mean different things to
 * different servers.
 */
const NOT_CANONICAL = /\/\/|\\|;|%2e|%2f|%5c|%00|\/\.{1,2}(\/|$)/i
const PATH = /^\/([A-Za-z0-9\-._~!$&'()*+,=:@/]|%[0-9A-Fa-f]{2})*$/
/**
 * The most subprotocols a worker may offer, and the most characters of each, apart from its token.
 */
const OFFERS_MAX = 32
const OFFER_LENGTH_MAX = 256

export function validateUpgrade(request: RequestHead): Verdict<UpgradeRequest> {
  const objection = findObjection(request)
  if (objection !== undefined) return denied(objection)
  const key = single(request, 'sec-websocket-key')
  const target = splitTarget(request.url ?? '')
  // A Host is required, but its value is ignored: the name a worker uses decides nothing.
  const hasHost = single(request, 'host') !== undefined
  if (key === undefined || !KEY.test(key) || !hasHost) return denied('upgrade_malformed')
  if (!target.ok) return target
  const offers = listOffers(request)
  if (offers === undefined) return denied('upgrade_malformed')
  return granted({
    key,
    subprotocols: offers.filter((offer) => !isBearerSubprotocol(offer)),
    // A repeated header names a role that does not exist, rather than no role.
    role: request.headersDistinct['x-openclaw-role']?.join(', '),
    hasOrigin: request.headersDistinct['origin'] !== undefined,
    userAgent: single(request, 'user-agent'),
    traceparent: single(request, 'traceparent'),
    path: target.value,
  })
}

/** Why a request that is not an upgrade is refused: plain HTTP is never relayed. */
export function findObjection(request: RequestHead): Code | undefined {
  if (request.rawHeaders.length > 2 * HEADERS_MAX) return 'head_too_large'
  if (request.method !== 'GET') return 'method_not_allowed'
  if (request.httpVersion !== '1.1') return 'upgrade_malformed'
  const { headersDistinct: headers } = request
  if (single(request, 'upgrade')?.toLowerCase() !== 'websocket') return 'upgrade_required'
  if (!hasToken(headers['connection'], 'upgrade')) return 'upgrade_malformed'
  // One side would read a body after an upgrade as frames, the other as a body.
  if (headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined) {
    return 'upgrade_malformed'
  }
  if (single(request, 'sec-websocket-version') !== '13') return 'version_not_supported'
  return undefined
}

function splitTarget(target: string): Verdict<string> {
  if (target.length > TARGET_LENGTH_MAX || target.includes('#')) {
    return denied('target_not_canonical')
  }
  const [path = '', ...rest] = target.split('?')
  if (holdsToken(rest.join('?'))) return denied('credential_in_query')
  if (!PATH.test(path) || NOT_CANONICAL.test(path)) return denied('target_not_canonical')
  return granted(path)
}

function listOffers(request: RequestHead): readonly string[] | undefined {
  const values = request.headersDistinct['sec-websocket-protocol'] ?? []
  const offers = values
    .flatMap((value) => value.split(',', OFFERS_MAX + 1))
    .map((offer) => offer.trim())
  if (offers.length > OFFERS_MAX || new Set(offers).size !== offers.length) return undefined
  return offers.every(isOffer) ? offers : undefined
}

const isOffer = (offer: string): boolean =>
  HTTP_TOKEN.test(offer) && (offer.length <= OFFER_LENGTH_MAX || isBearerSubprotocol(offer))

/** The value of a header that appears exactly once. */
function single({ headersDistinct }: RequestHead, name: string): string | undefined {
  const values = headersDistinct[name]
  return values?.length === 1 ? values[0] : undefined
}

const hasToken = (values: readonly string[] | undefined, token: string): boolean =>
  (values ?? []).some((value) =>
    value.split(',').some((member) => member.trim().toLowerCase() === token),
  )
