/** Which header can carry a worker's token. */

/** RFC 9110 §5.6.2. */
export const HEADER_PATTERN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** Headers that already have a meaning in an upgrade or for the gateway. */
export const RESERVED_HEADER =
  /^(authorization|cookie|host|connection|upgrade|content-.*|accept-.*|transfer-encoding|te|trailer|origin|user-agent|traceparent|forwarded|x-real-ip|x-forwarded-.*|sec-.*|proxy-.*|x-openclaw-k8s-.*|x-openclaw-role|x-openclaw-scopes)$/i

export const DEFAULT_CREDENTIAL_HEADER = 'X-OpenClaw-SA-Token'
