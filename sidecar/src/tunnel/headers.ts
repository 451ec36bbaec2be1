/** Builds the upgrade request to the gateway: from an allow-list, never by copying headers. */

import { isBearerSubprotocol } from '../websocket/bearer-subprotocol.ts'
import { userNameOf, type Identity } from '../identity.ts'
import { normalizeAddress } from '../lib/address.ts'

/** Only this module can set it, so no dial can happen without the headers built here. */
const built = Symbol('built by buildUpstreamRequest')

/**
 * A gateway treats a request without `X-Forwarded-For` as its local owner. This type proves that
 * the header is there, exactly once, and names the worker.
 */
export type UpstreamRequest = {
  readonly [built]: true
  /** The whole request head, to be written as latin1. */
  readonly text: string
  /** Its `Sec-WebSocket-Key`. */
  readonly key: string
}

export type UpstreamRequestOptions = {
  readonly gatewayUrl: URL
  /** The peer address of the worker's socket, never one from a header. */
  readonly workerAddress: string
  readonly workerProto: 'http' | 'https'
  /** Our host name for workers, as `host` or `host:port`, never from a header. */
  readonly forwardedHost: string
  /** At most 256 printable characters; otherwise omitted. */
  readonly userAgent?: string | undefined
  /** W3C Trace Context, version 00; otherwise omitted. */
  readonly traceparent?: string | undefined
  /** The subprotocols to offer; one that carries a credential is omitted. */
  readonly subprotocols?: readonly string[]
  readonly identity: Identity
  readonly role: string
  /** The sidecar's own signed statement about the worker. */
  readonly assertion: string
  /** 16 random bytes in base64 (RFC 6455 §4.1). */
  readonly key: string
}

const PRINTABLE = /^[\x20-\x7e\xa0-\xff]*$/
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}$/
const HOST = /^[0-9A-Za-z._-]{1,253}(?::\d{1,5})?$|^\[[0-9A-Fa-f:.]{2,45}\](?::\d{1,5})?$/
const TRACEPARENT = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/
const KEY = /^[A-Za-z0-9+/]{22}==$/
const USER_AGENT_MAX = 256

/** Throws when the sidecar itself passes an invalid header value: a bug, never a verdict. */
export function buildUpstreamRequest(options: UpstreamRequestOptions): UpstreamRequest {
  const { gatewayUrl, key } = options
  if (!KEY.test(key)) throw new Error('the Sec-WebSocket-Key is not 16 bytes in base64')
  const target = `${gatewayUrl.pathname}${gatewayUrl.search}`
  const text =
    `GET ${target} HTTP/1.1\r\n` +
    linesOf(upgradeFields(options)) +
    linesOf(clientFields(options)) +
    linesOf(identityFields(options)) +
    '\r\n'
  return { [built]: true, text, key }
}

type Field = readonly [name: string, value: string | undefined]

const upgradeFields = ({ gatewayUrl, key }: UpstreamRequestOptions): readonly Field[] => [
  ['Host', gatewayUrl.host],
  ['Connection', 'Upgrade'],
  ['Upgrade', 'websocket'],
  ['Sec-WebSocket-Version', '13'],
  ['Sec-WebSocket-Key', key],
]

/** The client's headers that may pass; an invalid one is omitted, not repaired. */
function clientFields(options: UpstreamRequestOptions): readonly Field[] {
  return [
    ['Sec-WebSocket-Protocol', passSubprotocols(options.subprotocols)],
    ['User-Agent', passUserAgent(options.userAgent)],
    ['traceparent', passIf(options.traceparent, TRACEPARENT)],
  ]
}

function identityFields(options: UpstreamRequestOptions): readonly Field[] {
  const { identity, role, assertion, workerAddress, workerProto, forwardedHost } = options
  const { namespace, serviceAccount } = identity
  if (!HOST.test(forwardedHost)) throw new Error('the X-Forwarded-Host is not a host and port')
  return [
    ['X-Forwarded-For', canonicalAddress(workerAddress)],
    ['X-Forwarded-Host', forwardedHost],
    ['X-Forwarded-Proto', workerProto],
    ['X-Forwarded-User', userNameOf({ namespace, serviceAccount })],
    ['X-OpenClaw-K8s-Namespace', namespace],
    ['X-OpenClaw-K8s-Service-Account', serviceAccount],
    ['X-OpenClaw-K8s-Pod-Name', identity.podName],
    ['X-OpenClaw-K8s-Pod-Uid', identity.podUid],
    ['X-OpenClaw-K8s-Node-Name', identity.nodeName],
    ['X-OpenClaw-K8s-Role', role],
    ['X-OpenClaw-K8s-Credential-Id', identity.credentialId],
    // Always present and always empty: to the gateway an absent one means every scope.
    ['X-OpenClaw-Scopes', ''],
    ['X-OpenClaw-K8s-Assertion', assertion],
  ]
}

function linesOf(fields: readonly Field[]): string {
  let lines = ''
  for (const [name, value] of fields) {
    if (value === undefined) continue
    if (!PRINTABLE.test(value)) throw new Error(`${name} cannot be sent as a header`)
    lines += value === '' ? `${name}:\r\n` : `${name}: ${value}\r\n`
  }
  return lines
}

function passIf(value: string | undefined, grammar: RegExp): string | undefined {
  return value !== undefined && grammar.test(value) ? value : undefined
}

function passUserAgent(value: string | undefined): string | undefined {
  const isFit = value !== undefined && value !== '' && value.length <= USER_AGENT_MAX
  return isFit ? passIf(value, PRINTABLE) : undefined
}

function passSubprotocols(offers: readonly string[] = []): string | undefined {
  const passed = offers.filter((offer) => TOKEN.test(offer) && !isBearerSubprotocol(offer))
  return passed.length === 0 ? undefined : passed.join(', ')
}

function canonicalAddress(address: string): string {
  const canonical = normalizeAddress(address)
  if (canonical === undefined) throw new Error('the worker has no IP address')
  return canonical
}
