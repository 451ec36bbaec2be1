/** What the `status.error` of a TokenReview means: the token is refused, or nobody could say. */

export type ReviewError = 'refused' | 'invalidated' | 'undecided'

/** The answer of an API server none of whose authenticators knows the token. */
const UNKNOWN_TOKEN = 'invalid bearer token'

/**
 * What an API server says when a lookup of the bound pod, Secret or node fails, for whatever reason:
 * an outage of etcd looks the same as a deletion.
 */
const INVALIDATED = /(?:service account token|Token) has been invalidated/

/**
 * Every refusal of a ServiceAccount token in Kubernetes 1.30 to 1.37 (`pkg/serviceaccount`: jwt.go,
 * claims.go, legacy.go), and the errors of the JWT library that it passes on. The API server passes
 * the error of a failed lookup of the ServiceAccount on as well: of those only "not found" refuses.
 */
const REFUSALS: readonly RegExp[] = [
  /invalid signature, no keys found/,
  /(?:^|, )(?:square|go-jose)\/go-jose(?:\/jwt)?: /,
  /(?:^|, )json: cannot unmarshal [a-z]{1,16} into Go struct field (?:Claims|\w{0,32}rivateClaims|kubernetes|ref)\./,
  /token audiences .{0,1024} is invalid for the target audiences/,
  /token issuer .{0,1024} is invalid/,
  /service account token (?:has expired|is not valid yet|is issued in the future)/,
  /service account token claims could not be validated/,
  /serviceaccounts? "[^"]{0,512}" not found/,
  /service ?account [^ ]{1,512} has been deleted/i,
  /(?:service ?account|secret|pod|node|WebhookConfiguration) UID \([^)]{0,128}\) does not match/i,
  /token is bound to a Node object but/,
  /token is webhook bound/,
  /bound object was a webhook config/,
  /(?:sub|namespace|secretName|serviceAccountName|serviceAccountUID) claim is (?:missing|invalid)/,
  /Token does not match server's copy/,
  /has been marked invalid/,
]

/** The longest error that is read, in characters; a longer one is none of the above. */
const LENGTH_MAX = 16_384

export function judgeReviewError(error: unknown): ReviewError {
  if (typeof error !== 'string' || error.length > LENGTH_MAX) return 'undecided'
  if (error === UNKNOWN_TOKEN || REFUSALS.some((refusal) => refusal.test(error))) return 'refused'
  return INVALIDATED.test(error) ? 'invalidated' : 'undecided'
}

/** The most of the API server's own words that we repeat, in characters. */
const QUOTED_LENGTH_MAX = 512

/** The error in the API server's own words, as far as a log line may show them. */
export const quoteReviewError = (error: unknown): string =>
  JSON.stringify(error).slice(0, QUOTED_LENGTH_MAX)
