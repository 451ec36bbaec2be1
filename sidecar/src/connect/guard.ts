/** Decides which requests at the local port may use the pod's identity. */

import type { IncomingMessage } from 'node:http'
import { denied, granted } from '../denial.ts'
import { findHostingRoute, type HostingRoute } from '../dialect/openclaw/hosting-routes.ts'
import { HEADERS_MAX, validateUpgrade, type UpgradeRequest } from '../edge/upgrade.ts'
import { isLoopbackHost } from '../lib/address.ts'
import type { ConnectCode } from './codes.ts'

/** A WebSocket that may go on: the worker's own, or one of session hosting. */
export type StreamRequest = {
  readonly kind: 'stream'
  readonly path: string
  readonly upgrade: UpgradeRequest
  /** The gateway's own credential; only on a route of session hosting. */
  readonly authorization: string | undefined
}

/** An HTTP request of session hosting that may go on. */
export type ExchangeRequest = {
  readonly kind: 'exchange'
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly authorization: string
  /** Bytes of the body; `undefined` without one. */
  readonly length: number | undefined
}

type Refused = { readonly ok: false; readonly code: ConnectCode }
type Judgement = { readonly ok: true; readonly value: StreamRequest | ExchangeRequest } | Refused

export type GuardedRequest = Pick<
  IncomingMessage,
  'method' | 'httpVersion' | 'url' | 'rawHeaders' | 'headersDistinct'
>

/** The largest body of session hosting, in bytes: the gateway's own limit. */
export const BODY_BYTES_MAX = 4 * 1024 ** 3

const WORKER_PATH = '/'
const BEARER = /^Bearer [\x21-\x7e]{1,8192}$/
const LENGTH = /^(?:0|[1-9][0-9]{0,10})$/

const refused = (code: ConnectCode): Refused => ({ ok: false, code })

/**
 * A page that a browser of this pod shows can reach the port, too. Its WebSockets and its requests
 * of other kinds carry an `Origin`; a name that its owner points to loopback is in the `Host`. What
 * carries neither, such as an image, is not an upgrade and has no `Authorization`.
 */
export function judgeRequest(request: GuardedRequest, hosting: boolean): Judgement {
  const objection = findPeerObjection(request)
  if (objection !== undefined) return objection
  const { method, url = '', headersDistinct: headers } = request
  const isUpgrade = headers['upgrade'] !== undefined
  const route = hosting ? findHostingRoute({ method, target: url, isUpgrade }) : undefined
  if (route === undefined && url !== WORKER_PATH) return refused('path_not_served')
  if (isUpgrade || route === undefined) return judgeUpgrade(request, route)
  return judgeExchange(request)
}

function findPeerObjection(request: GuardedRequest): Refused | undefined {
  const { rawHeaders, headersDistinct: headers } = request
  // Node has dropped the headers beyond the limit.
  if (rawHeaders.length > 2 * HEADERS_MAX) return denied('head_too_large')
  if (headers['origin'] !== undefined) return denied('origin_not_allowed')
  const [host, ...others] = headers['host'] ?? []
  if (host === undefined || others.length > 0 || !isLoopbackHost(host)) {
    return refused('host_not_loopback')
  }
  return undefined
}

function judgeUpgrade(request: GuardedRequest, route: HostingRoute | undefined): Judgement {
  const upgrade = validateUpgrade(request)
  if (!upgrade.ok) return upgrade
  const [authorization, ...others] =
    route === undefined ? [] : (request.headersDistinct['authorization'] ?? [])
  if (others.length > 0) return refused('authorization_missing')
  if (authorization !== undefined && !BEARER.test(authorization)) {
    return refused('authorization_missing')
  }
  const path = route === undefined ? WORKER_PATH : upgrade.value.path
  return granted({ kind: 'stream', path, upgrade: upgrade.value, authorization })
}

function judgeExchange({ method, url = '', headersDistinct }: GuardedRequest): Judgement {
  // Its client would wait for a 100 that nobody sends.
  if (headersDistinct['expect'] !== undefined) return denied('session_hosting_malformed')
  const [authorization, ...others] = headersDistinct['authorization'] ?? []
  if (authorization === undefined || others.length > 0 || !BEARER.test(authorization)) {
    return refused('authorization_missing')
  }
  const length = readLength(headersDistinct)
  const isPost = method === 'POST'
  if (headersDistinct['transfer-encoding'] !== undefined || isPost !== (length !== undefined)) {
    return refused('length_required')
  }
  if ((length ?? 0) > BODY_BYTES_MAX) return refused('body_too_large')
  const common = { kind: 'exchange', path: url, authorization, length } as const
  return granted({ ...common, method: isPost ? 'POST' : 'GET' })
}

/** A repeated or malformed length counts as none: Node has refused those already. */
function readLength(headers: GuardedRequest['headersDistinct']): number | undefined {
  const [length = '', ...others] = headers['content-length'] ?? []
  return others.length === 0 && LENGTH.test(length) ? Number(length) : undefined
}
