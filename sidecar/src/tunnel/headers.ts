/** Builds the requests to the gateway: from an allow-list, never by copying headers. */

import { isBearerSubprotocol } from '../websocket/bearer-subprotocol.ts'
import { userNameOf, type Identity } from '../identity.ts'
import { normalizeAddress } from '../lib/address.ts'

/** Only this module can set it, so no dial can happen without the headers built here. */
const built = Symbol('built by tunnel/headers.ts')

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

/** The same proof for a request that Node's client sends. */
export type UpstreamTransfer = {
  readonly [built]: true
  readonly method: string
  readonly target: string
  /** Names and values in turn. */
  readonly headers: readonly string[]
}

/** What the gateway is told about where a request came from. */
type ForwardedOptions = {
  readonly gatewayUrl: URL
  /** The peer address of the worker's socket, never one from a header. */
  readonly workerAddress: string
  readonly workerProto: 'http' | 'https'
  /** Our host name for workers, as `host` or `host:port`, never from a header. */
  readonly forwardedHost: string
}

export type HostedUpgradeOptions = ForwardedOptions & {
  /** The path of a session-hosting route. */
  readonly target: string
  /** The gateway's own credential, checked for its grammar. */
  readonly authorization: string | undefined
  /** 16 random bytes in base64 (RFC 6455 §4.1). */
  readonly key: string
}

/** A request of session hosting, as far as the gateway is told of it. */
export type HostedCall = {
  readonly method: string
  readonly target: string
  /** The gateway's own credential. */
  readonly authorization: string | undefined
  readonly contentType: string | undefined
  /** In bytes; `undefined` without a body. */
  readonly contentLength: number | undefined
  readonly acceptEncoding: string | undefined
}

export type UpstreamRequestOptions = ForwardedOptions & {
  /** At most 256 printable characters; otherwise omitted. */
  readonly userAgent?: string | undefined
  /** W3C Trace Context, version 00; otherwise omitted. */
  readonly traceparent?: string | undefined
  /** The subprotocols to offer; one that carries a credential is omitted. */
  readonly subprotocols?: readonly string[]
  readonly identity: Identity
  readonly role: string
  /** The sidecar's own signed statement about the worker. Omitted where the gateway is not to have one. */
  readonly assertion?: string | undefined
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
  const text =
    `GET ${targetOf(gatewayUrl)} HTTP/1.1\r\n` +
    linesOf(upgradeFields(options)) +
    linesOf(clientFields(options)) +
    linesOf(identityFields(options)) +
    '\r\n'
  return { [built]: true, text, key }
}

type Field = readonly [name: string, value: string | undefined]

/** An upgrade of session hosting: the gateway has given the worker a credential, so no identity. */
export function buildHostedUpgrade(options: HostedUpgradeOptions): UpstreamRequest {
  const { key, target, authorization } = options
  if (!KEY.test(key)) throw new Error('the Sec-WebSocket-Key is not 16 bytes in base64')
  const fields: readonly Field[] = [
    ...upgradeFields(options),
    ['Authorization', authorization],
    ...forwardedFields(options),
    NO_SCOPES,
  ]
  return { [built]: true, text: `GET ${target} HTTP/1.1\r\n${linesOf(fields)}\r\n`, key }
}

/** An upgrade for the sidecar itself, which only wants to know whether workers would get one. */
export const buildCheckUpgrade = (
  options: ForwardedOptions & Pick<UpstreamRequestOptions, 'key'>,
): UpstreamRequest =>
  buildHostedUpgrade({
    ...options,
    target: targetOf(options.gatewayUrl),
    authorization: undefined,
  })

const targetOf = ({ pathname, search }: URL): string => `${pathname}${search}`

/**
 * A request of session hosting. It asks to keep the connection: a gateway that refuses a body
 * early then still reads it, where it would otherwise reset the connection and lose its answer.
 */
export function buildTransferRequest(options: ForwardedOptions & HostedCall): UpstreamTransfer {
  const { gatewayUrl, method, target, contentLength } = options
  const fields: readonly Field[] = [
    ['Host', gatewayUrl.host],
    ['Connection', 'keep-alive'],
    ['Authorization', options.authorization],
    ['Content-Type', options.contentType],
    ['Content-Length', contentLength === undefined ? undefined : String(contentLength)],
    ['Accept-Encoding', options.acceptEncoding],
    ...forwardedFields(options),
    NO_SCOPES,
  ]
  // Throws for what cannot be sent.
  linesOf(fields)
  const headers = fields.flatMap(([name, value]) => (value === undefined ? [] : [name, value]))
  return { [built]: true, method, target, headers }
}

/** Always present and always empty: to the gateway an absent one means every scope. */
const NO_SCOPES: Field = ['X-OpenClaw-Scopes', '']

const upgradeFields = ({
  gatewayUrl,
  key,
}: Pick<UpstreamRequestOptions, 'gatewayUrl' | 'key'>): readonly Field[] => [
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
  const { identity, role, assertion } = options
  const { namespace, serviceAccount } = identity
  return [
    ...forwardedFields(options),
    ['X-Forwarded-User', userNameOf({ namespace, serviceAccount })],
    ['X-OpenClaw-K8s-Namespace', namespace],
    ['X-OpenClaw-K8s-Service-Account', serviceAccount],
    ['X-OpenClaw-K8s-Pod-Name', identity.podName],
    ['X-OpenClaw-K8s-Pod-Uid', identity.podUid],
    ['X-OpenClaw-K8s-Node-Name', identity.nodeName],
    ['X-OpenClaw-K8s-Role', role],
    ['X-OpenClaw-K8s-Credential-Id', identity.credentialId],
    NO_SCOPES,
    ['X-OpenClaw-K8s-Assertion', assertion],
  ]
}

function forwardedFields(options: ForwardedOptions): readonly Field[] {
  const { workerAddress, workerProto, forwardedHost } = options
  if (!HOST.test(forwardedHost)) throw new Error('the X-Forwarded-Host is not a host and port')
  return [
    ['X-Forwarded-For', canonicalAddress(workerAddress)],
    ['X-Forwarded-Host', forwardedHost],
    ['X-Forwarded-Proto', workerProto],
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
