/** The one closed table of codes: why a worker was refused or its stream closed. */

type Kind = 'denial' | 'fault'

/**
 * One way to say no. `kind` tells a verdict (`denial`) from a world that gave none (`fault`,
 * always worth a retry). `status` answers an HTTP upgrade, `close` a WebSocket (RFC 6455 §7.4.1).
 * `message` is the only text a client is ever shown.
 */
export type Refusal = {
  readonly kind: Kind
  readonly status: number
  readonly close: number
  readonly message: string
  /** Whether an attempt that ends with it is charged to its address or its pod. */
  readonly isCharged: boolean
}

const denial = (status: number, close: number, message: string) =>
  ({ kind: 'denial', status, close, message, isCharged: true }) as const
/**
 * A fault that the caller could not help: the cluster's, the gateway's, ours, or a limit that
 * others have reached. An outage must not lock honest workers out.
 */
const fault = (status: number, close: number, message: string) =>
  ({ kind: 'fault', status, close, message, isCharged: false }) as const
/** A fault that the caller brings about, as often as it likes unless it is charged. */
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
  version_not_supported: denial(426, 1002, 'Only WebSocket version 13 is spoken here.'),
  method_not_allowed: denial(405, 1002, 'Only GET upgrades are accepted.'),
  target_not_canonical: denial(400, 1002, 'The request target is not a canonical path.'),
  head_too_large: denial(431, 1009, 'The request head exceeds 16 KiB or 256 headers.'),
  handshake_timeout: denial(408, 1008, 'The handshake took too long.'),

  // The credential.
  credential_missing: denial(
    401,
    1008,
    'No credential was shown. Send the ServiceAccount token as a Bearer token.',
  ),
  credential_repeated: denial(400, 1008, 'More than one credential was shown. Send exactly one.'),
  credential_in_query: denial(
    400,
    1008,
    'A token does not belong in the query string. Send it in a header.',
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
    'The first frame carries another credential than the upgrade.',
  ),

  // The token, before its signature: claims may only refuse.
  token_malformed: denial(401, 1008, 'The credential is not a ServiceAccount token.'),
  algorithm_not_allowed: denial(401, 1008, 'The token is signed in a way that is not accepted.'),
  issuer_not_allowed: denial(401, 1008, 'The token was issued by another cluster.'),
  audience_mismatch: denial(
    401,
    1008,
    "The token is for another audience. Project it with the gateway's audience.",
  ),
  token_expired: denial(401, 1008, 'The token has expired. Read it again and reconnect.'),
  token_not_yet_valid: denial(401, 1008, 'The token is not valid yet. Compare the clocks.'),
  token_lifetime_exceeded: denial(403, 1008, 'The token lives longer than is allowed here.'),
  token_not_pod_bound: denial(403, 1008, 'The token is not bound to a pod. Use a projected token.'),
  identity_not_allowed: denial(403, 1008, 'This ServiceAccount is not on the allow-list.'),

  // The token, proven.
  signature_invalid: denial(401, 1008, 'The signature of the token is not valid.'),
  signing_key_unknown: denial(
    401,
    1008,
    'The token is signed with a key the cluster does not have.',
  ),
  review_rejected: denial(401, 1008, 'The cluster does not accept the token.'),
  review_audience_mismatch: denial(
    401,
    1008,
    'The cluster did not vouch for the audience of the token.',
  ),
  review_identity_mismatch: denial(
    403,
    1008,
    'The cluster vouches for somebody else than the token claims.',
  ),

  // The pod.
  pod_not_found: denial(403, 1008, 'The pod of the token does not exist.'),
  pod_deleted: denial(403, 1008, 'The pod of the token was deleted.'),
  pod_terminating: denial(403, 1008, 'The pod of the token is being deleted.'),
  pod_not_running: denial(403, 1008, 'The pod of the token is not running.'),
  pod_mismatch: denial(403, 1008, 'The pod of the token is another than it claims.'),
  host_network_not_allowed: denial(403, 1008, 'Pods on the host network are not allowed here.'),
  source_address_mismatch: denial(
    403,
    1008,
    'The token was shown from another address than its pod has.',
  ),
  service_account_deleted: denial(403, 1008, 'The ServiceAccount of the token was deleted.'),
  pod_unconfirmed: fault(503, 1013, 'The pod could not be confirmed right now. Try again later.'),

  // The role.
  role_missing: denial(403, 1008, 'The role is missing. Name the role in the handshake.'),
  role_not_allowed: denial(403, 1008, 'This role is not allowed for the ServiceAccount.'),
  policy_changed: fault(503, 1012, 'The policy allows less than before. Reconnect.'),
  trust_disabled: denial(403, 1008, 'Kubernetes trust is switched off at this gateway.'),

  // The first frame.
  frame_malformed: denial(400, 1008, 'The first message is not a connect.request.'),
  frame_binary: denial(400, 1003, 'The first message must be text.'),
  frame_too_large: denial(413, 1009, 'The first message is too large, or in too many frames.'),

  // The handshake of OpenClaw nodes.
  origin_not_allowed: denial(403, 1008, 'Browsers may not connect here.'),
  source_address_local: denial(403, 1008, 'Workers may not connect from a loopback address.'),
  connect_malformed: denial(400, 1008, 'The first message is not a valid connect request.'),
  protocol_mismatch: denial(400, 1008, 'Only version 4 of the gateway protocol is spoken here.'),
  client_not_allowed: denial(403, 1008, 'Only node hosts may connect here.'),
  scopes_not_allowed: denial(403, 1008, 'A node may not ask for scopes.'),
  device_id_mismatch: denial(401, 1008, 'The device is not named after its key.'),
  device_nonce_mismatch: denial(401, 1008, 'The device signed the nonce of another challenge.'),
  device_clock_skew: denial(401, 1008, 'The device signature is too old or too new.'),
  device_signature_invalid: denial(401, 1008, 'The device signature is not valid.'),
  operator_unavailable: fault(
    503,
    1013,
    'The gateway cannot take the worker in right now. Try again later.',
  ),
  displaced: callerFault(503, 1012, 'A newer connection of the same pod took over. Reconnect.'),

  // Limits. The first two cost us next to nothing and are not charged: a penalty must end by itself,
  // and a herd behind one address must not lose its turns to those that found no room.
  rate_limited: fault(429, 1013, 'Too many failed attempts from this address. Try again later.'),
  too_many_pending: fault(503, 1013, 'Too many handshakes are under way. Try again later.'),
  too_many_streams: fault(503, 1013, 'The gateway has as many workers as it may. Try again later.'),
  too_many_streams_of_pod: callerFault(
    503,
    1013,
    'This pod has as many streams as it may. Try again later.',
  ),

  // Nobody could say.
  admission_timeout: fault(503, 1013, 'The admission took too long. Try again later.'),
  keys_unavailable: fault(
    503,
    1013,
    'The signing keys of the cluster cannot be had right now. Try again later.',
  ),
  keys_cooldown: callerFault(503, 1013, 'The signing key is not known yet. Try again later.'),
  review_unavailable: fault(
    503,
    1013,
    'The cluster could not be asked right now. Try again later.',
  ),
  own_credential_refused: fault(
    503,
    1013,
    'The sidecar may not ask the cluster right now. Try again later.',
  ),
  gateway_unreachable: fault(
    502,
    1013,
    'The gateway cannot be reached right now. Try again later.',
  ),
  gateway_refused: fault(502, 1013, 'The gateway did not accept the stream. Try again later.'),
  draining: fault(503, 1012, 'The sidecar is shutting down. Reconnect.'),

  // Streams under way.
  framing_violation: denial(400, 1002, 'The stream broke the WebSocket framing rules.'),
  invalid_utf8: denial(400, 1007, 'The first message or a close reason is not valid UTF-8.'),
  message_too_big: denial(413, 1009, 'A message exceeds the size limit.'),
  empty_fragments_exceeded: denial(400, 1008, 'Too many empty fragments in a row.'),
  idle_timeout: fault(408, 1001, 'The peer no longer answers.'),
  gateway_gone: fault(502, 1013, 'The gateway went away. Reconnect.'),
  session_age_exceeded: fault(503, 1012, 'The stream reached its greatest age. Reconnect.'),
  watch_stale: fault(503, 1013, 'The cluster has been out of sight for too long. Reconnect.'),
  worker_gone: callerFault(499, 1001, 'The worker went away.'),
} as const satisfies Record<string, Refusal>

export type Code = keyof typeof CODES

/** Whether an answer of ours is worth a retry with the same credential. */
export const isFault = (code: Code): boolean => CODES[code].kind === 'fault'

/** Whether an attempt that ends with `code` is charged to its address or its pod. */
export const isCharged = (code: Code): boolean => CODES[code].isCharged

/** The verdict of a stage that may say no: a value, never an exception. */
export type Verdict<T> = { readonly ok: true; readonly value: T } | Denied
export type Denied = { readonly ok: false; readonly code: Code }

export const granted = <T>(value: T): Verdict<T> => ({ ok: true, value })
export const denied = (code: Code): Denied => ({ ok: false, code })
