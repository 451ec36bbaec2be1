/** The closed table of reasons for which a gateway refuses a connection, each with its remedy. */

import { Fault } from './fault.ts'

/** What is wrong, where the reason itself says so, and what the operator can do about it. */
type Diagnosis = { readonly what?: string; readonly remedy: string }

const SECRET: Diagnosis = {
  what: 'gateway.auth.secretFile: the gateway refuses this secret',
  remedy:
    "Mount the gateway's own secret there, and restart the gateway if the secret was rotated.",
}
const MODE = {
  what: 'gateway.auth.mode: the gateway expects another kind of secret',
  remedy: "Set it to the mode of the gateway's own gateway.auth.",
}
const DEVICE: Diagnosis = {
  remedy:
    "The gateway does not accept the device that the sidecar made. Compare the clocks, and read the gateway's log.",
}
const FOREIGN: Diagnosis = {
  remedy:
    'This reason is not for nodes or operators: check that gateway.url is the gateway itself.',
}
const VERSION: Diagnosis = {
  remedy: 'Use versions of OpenClaw at gateway and workers that docs/compatibility.md lists.',
}
const PAIRING: Diagnosis = {
  remedy: 'The gateway has not approved the device. See its log and `openclaw devices list`.',
}
const BUSY: Diagnosis = {
  remedy:
    'The gateway starts, stops or is overloaded: it is asked again. Read its log if this stays.',
}
const LOCKED: Diagnosis = {
  remedy:
    'The gateway has locked this address out after failed attempts: it opens again by itself within minutes.',
}
const UNKNOWN: Diagnosis = { remedy: "Read the gateway's log: it has the reason." }

/**
 * The keys are the gateway's own words, read in OpenClaw 2026.5.12 to 2026.9.6: `error.type` of an
 * HTTP answer, `error.details.code` of a refused `connect`, or else its `error.code`. The last ones
 * are what the sidecar sees by itself. Each is a value of a metric's label.
 */
export const GATEWAY_REFUSALS = {
  proxy_attribution_required: {
    remedy:
      "Set gateway.trustedProxies to the sidecar's address alone (127.0.0.1 and ::1) in the gateway's own configuration.",
  },
  rate_limited: LOCKED,
  unauthorized: {
    remedy: 'The gateway wants a credential before the upgrade: check that gateway.url is right.',
  },
  service_unavailable: BUSY,

  AUTH_TOKEN_MISMATCH: SECRET,
  AUTH_PASSWORD_MISMATCH: SECRET,
  AUTH_TOKEN_MISSING: MODE,
  AUTH_PASSWORD_MISSING: MODE,
  AUTH_TOKEN_NOT_CONFIGURED: MODE,
  AUTH_PASSWORD_NOT_CONFIGURED: MODE,
  AUTH_REQUIRED: MODE,
  AUTH_UNAUTHORIZED: {
    what: MODE.what,
    remedy: `${MODE.remedy} In trusted-proxy mode OpenClaw 2026.5 takes no password from the sidecar: use token mode there.`,
  },
  AUTH_IDENTITY_HEADER_REQUIRED: {
    remedy:
      "The gateway trusts a header that the sidecar does not send: set gateway.auth.trustedProxy.userHeader to x-forwarded-user in the gateway's own configuration.",
  },
  AUTH_VERIFIED_USER_REQUIRED: MODE,
  AUTHENTICATED_PROFILE_UNAVAILABLE: MODE,
  AUTH_RATE_LIMITED: LOCKED,
  AUTH_BOOTSTRAP_TOKEN_INVALID: PAIRING,
  AUTH_DEVICE_TOKEN_MISMATCH: DEVICE,
  AUTH_SCOPE_MISMATCH: DEVICE,
  DEVICE_IDENTITY_REQUIRED: {
    what: 'the gateway does not take the sidecar for its operator',
    remedy:
      'Check gateway.auth.mode and the secret, and that the sidecar reaches the gateway on loopback.',
  },
  DEVICE_AUTH_INVALID: DEVICE,
  DEVICE_AUTH_DEVICE_ID_MISMATCH: DEVICE,
  DEVICE_AUTH_SIGNATURE_EXPIRED: DEVICE,
  DEVICE_AUTH_NONCE_REQUIRED: DEVICE,
  DEVICE_AUTH_NONCE_MISMATCH: DEVICE,
  DEVICE_AUTH_SIGNATURE_INVALID: DEVICE,
  DEVICE_AUTH_PUBLIC_KEY_INVALID: DEVICE,
  PAIRING_REQUIRED: PAIRING,
  NOT_PAIRED: PAIRING,
  PROTOCOL_MISMATCH: VERSION,
  CLIENT_VERSION_MISMATCH: VERSION,
  AUTH_TAILSCALE_IDENTITY_MISSING: FOREIGN,
  AUTH_TAILSCALE_PROXY_MISSING: FOREIGN,
  AUTH_TAILSCALE_WHOIS_FAILED: FOREIGN,
  AUTH_TAILSCALE_IDENTITY_MISMATCH: FOREIGN,
  CONTROL_UI_BUILD_MISMATCH: FOREIGN,
  CONTROL_UI_ORIGIN_NOT_ALLOWED: FOREIGN,
  CONTROL_UI_DEVICE_IDENTITY_REQUIRED: FOREIGN,
  FORBIDDEN: UNKNOWN,
  INVALID_REQUEST: VERSION,
  UNAVAILABLE: BUSY,

  no_challenge: {
    what: 'the server at gateway.url upgrades, but sends no connect.challenge',
    remedy: 'It is not OpenClaw: correct gateway.url, or set gateway.protocol to stream.',
  },
  tls: {
    what: 'the gateway serves TLS',
    remedy:
      "The sidecar dials ws:// without TLS, beside it on loopback: set gateway.tls.enabled to false in the gateway's own configuration, or point gateway.url at a plain port.",
  },
  other: UNKNOWN,
} as const satisfies Record<string, Diagnosis>

export type GatewayRefusal = keyof typeof GATEWAY_REFUSALS

/** What a gateway may call its reason, so that it can be logged. */
const WORD = /^[A-Za-z0-9_.-]{1,64}$/

const isKnown = (word: string): word is GatewayRefusal => Object.hasOwn(GATEWAY_REFUSALS, word)

/** The gateway refused a connection of ours: a worker's, the operator's, or one that only asks. */
export class GatewayRefused extends Fault {
  /** `other` for a word that the table does not have. */
  readonly refusal: GatewayRefusal
  /** What was refused and why, without a full stop. */
  readonly what: string
  readonly remedy: string

  /**
   * `word` is the gateway's own; anything else that it says goes no further. `what` says what was
   * refused, where the reason does not say it by itself.
   */
  constructor(word: string, what: string, remedy?: string) {
    const refusal = isKnown(word) ? word : 'other'
    const diagnosis: Diagnosis = GATEWAY_REFUSALS[refusal]
    const said = WORD.test(word) ? word : 'other'
    const sentence = `${diagnosis.what ?? what}${said === 'other' ? '' : ` (${said})`}`
    const cure = remedy ?? diagnosis.remedy
    super('gateway_refused', `${sentence}. ${cure}`)
    this.name = 'GatewayRefused'
    this.refusal = refusal
    this.what = sentence
    this.remedy = cure
  }
}
