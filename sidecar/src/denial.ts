/** The one closed table of codes: why a worker was refused or its stream closed. */

type Kind = 'denial' | 'fault'

/**
 * One way to refuse. A `denial` is a verdict; a `fault` means that there was no verdict, and is
 * always worth a retry. `status` answers an HTTP upgrade, `close` a WebSocket (RFC 6455 §7.4.1).
 * `message` is the only text a client ever sees.
 */
export type Refusal = {
  readonly kind: Kind
  readonly status: number
  readonly close: number
  readonly message: string
  /** Whether an attempt that ends with this code is charged to its address or its pod. */
  readonly isCharged: boolean
}

const denial = (status: number, close: number, message: string) =>
  ({ kind: 'denial', status, close, message, isCharged: true }) as const
/**
 * A fault the caller did not cause: it lies with the cluster, the gateway or us, or others have
 * reached a limit. An outage must not lock honest workers out.
 */
const fault = (status: number, close: number, message: string) =>
  ({ kind: 'fault', status, close, message, isCharged: false }) as const
/** A fault the caller causes. It is charged, or the caller could repeat it without limit. */
const callerFault = (status: number, close: number, message: string) =>
  ({ kind: 'fault', status, close, message, isCharged: true }) as const

/**
 * Every code is at once the `code` label of the metrics, the `code` field of the audit line, the
 * reason of a close frame and a heading of the runbook.
 */
export const CODES = {
  // The upgrade request (RFC 6455 §4.2.1).
  upgrade_required: denial(
    426,
    1002,
    'This port speaks WebSocket only. Connect with a WebSocket client.',
  ),
  upgrade_malformed: denial(400, 1002, 'The WebSocket upgrade request is malformed.'),
  version_not_supported: denial(426, 1002, 'Only WebSocket version 13 is supported.'),
  method_not_allowed: denial(405, 1002, 'Only GET upgrades are accepted.'),
  target_not_canonical: denial(400, 1002, 'The request path is not in canonical form.'),
  head_too_large: denial(431, 1009, 'The request head exceeds 16 KiB or 256 headers.'),
  proxy_protocol_unexpected: denial(
    400,
    1002,
    'The connection began with the PROXY protocol, which this port does not speak.',
  ),
  tls_unexpected: denial(
    400,
    1002,
    'The connection began with TLS, which this port does not speak.',
  ),
  handshake_timeout: denial(408, 1008, 'The handshake timed out.'),

  // The credential.
  credential_missing: denial(
    401,
    1008,
    'No credential was sent. Send the ServiceAccount token as a Bearer token.',
  ),
  credential_repeated: denial(400, 1008, 'More than one credential was sent. Send exactly one.'),
  credential_in_query: denial(
    400,
    1008,
    'Tokens are not accepted in the query string. Send the token in a header.',
  ),
  credential_malformed: denial(
    401,
    1008,
    'The credential could not be read. Send the ServiceAccount token as a Bearer token.',
  ),
  credential_too_large: denial(401, 1008, 'The credential exceeds 8 KiB.'),
  credential_mismatch: denial(
    401,
    1008,
    'The credential in the first message differs from the one in the upgrade.',
  ),

  // The token before its signature is verified: claims can only refuse.
  token_malformed: denial(401, 1008, 'The credential is not a ServiceAccount token.'),
  algorithm_not_allowed: denial(
    401,
    1008,
    "The token's signing algorithm or header is not allowed.",
  ),
  issuer_not_allowed: denial(401, 1008, 'The issuer of the token is not allowed.'),
  audience_mismatch: denial(
    401,
    1008,
    "The token has the wrong audience. Project it with the gateway's audience.",
  ),
  token_expired: denial(401, 1008, 'The token has expired. Read it again and reconnect.'),
  token_not_yet_valid: denial(401, 1008, 'The token is not valid yet. Check the clocks.'),
  token_lifetime_exceeded: denial(403, 1008, 'The lifetime of the token is longer than allowed.'),
  token_not_pod_bound: denial(403, 1008, 'The token is not bound to a pod. Use a projected token.'),
  identity_not_allowed: denial(403, 1008, 'This ServiceAccount is not on the allow-list.'),

  // The token, proven.
  signature_invalid: denial(401, 1008, 'The token signature is not valid.'),
  signing_key_unknown: denial(
    401,
    1008,
    "The token was signed with a key that is not one of the cluster's.",
  ),
  review_rejected: denial(401, 1008, 'The cluster rejected the token.'),
  review_audience_mismatch: denial(
    401,
    1008,
    'The cluster did not confirm the audience of the token.',
  ),
  review_identity_mismatch: denial(
    403,
    1008,
    "The TokenReview identity does not match the token's claims.",
  ),

  // The pod.
  pod_not_found: denial(403, 1008, 'The pod of the token does not exist.'),
  pod_deleted: denial(403, 1008, 'The pod of the token was deleted.'),
  pod_terminating: denial(403, 1008, 'The pod of the token is being deleted.'),
  pod_not_running: denial(403, 1008, 'The pod of the token is not running.'),
  pod_mismatch: denial(403, 1008, "The pod does not match the token's claims."),
  host_network_not_allowed: denial(403, 1008, 'Pods on the host network are not allowed.'),
  source_address_mismatch: denial(
    403,
    1008,
    "The token was used from an address that is not its pod's.",
  ),
  service_account_deleted: denial(403, 1008, 'The ServiceAccount of the token was deleted.'),
  source_address_unconfirmed: callerFault(
    503,
    1013,
    "The address of the token's pod could not be confirmed. Try again in two seconds.",
  ),
  pod_unconfirmed: fault(503, 1013, 'The pod could not be confirmed. Try again later.'),

  // The role.
  role_missing: denial(403, 1008, 'The handshake names no role. Send a role.'),
  role_not_allowed: denial(403, 1008, 'The ServiceAccount is not allowed to use this role.'),
  policy_changed: fault(503, 1012, 'The policy has changed and allows less. Reconnect.'),
  trust_disabled: denial(403, 1008, 'Kubernetes trust is disabled on this gateway.'),

  // The first frame.
  frame_malformed: denial(400, 1008, 'The first message is not a connect.request.'),
  frame_binary: denial(400, 1003, 'The first message must be a text message.'),
  frame_too_large: denial(413, 1009, 'The first message is too large or has too many frames.'),

  // The handshake of OpenClaw nodes.
  origin_not_allowed: denial(403, 1008, 'Browsers cannot connect to this port.'),
  source_address_local: denial(403, 1008, 'Workers cannot connect from a loopback address.'),
  connect_malformed: denial(400, 1008, 'The first message is not a valid connect request.'),
  protocol_mismatch: denial(
    400,
    1002,
    'The gateway does not support this version of the protocol.',
  ),
  client_not_allowed: denial(403, 1008, 'Only node hosts can connect to this port.'),
  scopes_not_allowed: denial(403, 1008, 'Nodes must not request scopes.'),
  device_id_mismatch: denial(401, 1008, "The device ID does not match the device's public key."),
  device_nonce_mismatch: denial(401, 1008, 'The device signed a different challenge nonce.'),
  device_clock_skew: denial(401, 1008, 'The device signature is too old or dated in the future.'),
  device_signature_invalid: denial(401, 1008, 'The device signature is not valid.'),
  too_many_enrolments: fault(
    503,
    1013,
    'Too many new workers share this address. Try again later.',
  ),
  operator_unavailable: fault(
    503,
    1013,
    'The gateway cannot register the worker right now. Try again later.',
  ),
  displaced: callerFault(
    503,
    1012,
    'A newer connection from the same pod replaced this one. Reconnect.',
  ),

  // Session hosting.
  session_hosting_disabled: denial(403, 1008, 'Session hosting is disabled on this gateway.'),
  session_hosting_not_allowed: denial(
    403,
    1008,
    'The ServiceAccount is not allowed to host sessions.',
  ),
  session_hosting_unproven: denial(
    403,
    1008,
    "The request shows no pod. Send the pod's token in the credential header.",
  ),
  session_hosting_malformed: denial(
    400,
    1002,
    'The request does not have the form that its session-hosting route needs.',
  ),
  session_hosting_no_stream: callerFault(
    503,
    1013,
    'The pod has no open stream. Connect its node first.',
  ),
  transfer_too_large: denial(413, 1009, 'The transfer exceeds 4 GiB.'),
  transfer_timeout: fault(408, 1001, 'The transfer took longer than 10 minutes.'),

  // Limits. The first two cost us almost nothing and are not charged: a penalty must be able to end,
  // and workers behind one address must not pay for those that found no room.
  rate_limited: fault(429, 1013, 'Too many failed attempts from this address. Try again later.'),
  too_many_pending: fault(503, 1013, 'Too many handshakes are in progress. Try again later.'),
  too_many_streams: fault(503, 1013, 'The gateway is at its stream limit. Try again later.'),
  too_many_streams_of_pod: callerFault(
    503,
    1013,
    'This pod is at its stream limit. Try again later.',
  ),

  // No verdict was possible.
  admission_timeout: fault(503, 1013, 'The admission timed out. Try again later.'),
  keys_unavailable: fault(
    503,
    1013,
    "The cluster's signing keys are unavailable. Try again later.",
  ),
  keys_cooldown: callerFault(
    503,
    1013,
    "The token's signing key or issuer is not known yet. Try again later.",
  ),
  review_unavailable: fault(503, 1013, 'The cluster could not review the token. Try again later.'),
  own_credential_refused: fault(
    503,
    1013,
    "The cluster refused the sidecar's own credential. Try again later.",
  ),
  gateway_unreachable: fault(502, 1013, 'The gateway is unreachable. Try again later.'),
  gateway_refused: fault(502, 1013, 'The gateway refused the connection. Try again later.'),
  draining: fault(503, 1012, 'The sidecar is shutting down. Reconnect.'),

  // Open streams.
  framing_violation: denial(400, 1002, 'The stream violated the WebSocket framing rules.'),
  invalid_utf8: denial(400, 1007, 'The first message or a close reason is not valid UTF-8.'),
  message_too_big: denial(413, 1009, 'A message exceeds the size limit.'),
  empty_fragments_exceeded: denial(400, 1008, 'Too many empty fragments in a row.'),
  idle_timeout: fault(408, 1001, 'The peer stopped responding.'),
  gateway_gone: fault(502, 1013, 'The gateway closed the connection unexpectedly. Reconnect.'),
  session_age_exceeded: fault(503, 1012, 'The stream reached its maximum age. Reconnect.'),
  watch_stale: fault(503, 1013, 'The pod watch has been down for too long. Reconnect.'),
  worker_gone: callerFault(499, 1001, 'The worker disconnected.'),
} as const satisfies Record<string, Refusal>

export type Code = keyof typeof CODES

/** Whether a refusal with this code is worth a retry with the same credential. */
export const isFault = (code: Code): boolean => CODES[code].kind === 'fault'

/** Whether an attempt that ends with `code` is charged to its address or its pod. */
export const isCharged = (code: Code): boolean => CODES[code].isCharged

/** The verdict of a stage that can refuse: a value, never an exception. */
export type Verdict<T> = { readonly ok: true; readonly value: T } | Denied
export type Denied = { readonly ok: false; readonly code: Code }

export const granted = <T>(value: T): Verdict<T> => ({ ok: true, value })
export const denied = (code: Code): Denied => ({ ok: false, code })
