/** Where the sidecar refuses a token that the API server takes: with which code, and why that is right. */

import type { Code } from '@openclaw-k8s/auth-sidecar/denial.ts'

type Reason = readonly [why: string, code: Code, kinds: readonly string[]]

const REASONS: readonly Reason[] = [
  [
    'The API server remembers its own success for 10 s; the watch knows at once.',
    'pod_deleted',
    ['deleted', 'replaced'],
  ],
  ['The same, for a ServiceAccount.', 'service_account_deleted', ['orphan']],
  [
    'The API server vouches for a pod until 60 s after its grace; here nobody new may come.',
    'pod_terminating',
    ['ending'],
  ],
  [
    'A token has to say which pod it is of: the pod carries its revocation.',
    'token_not_pod_bound',
    ['bound to no pod', 'pod: missing'],
  ],
  ['The same, said in another way.', 'token_malformed', ['pod: null']],
  [
    'A token ends when it says so; the API server allows 60 s more.',
    'token_expired',
    ['expired, in the leeway'],
  ],
  [
    'A cluster does not issue a token without an end or with invalid times.',
    'token_malformed',
    [
      'exp: missing',
      'exp: null',
      'nbf: null',
      'nbf: negative',
      'iat: null',
      'iat: negative',
      'iat and nbf: missing',
    ],
  ],
  [
    'The API server sets no bound to the life of a token; `maxTokenLifetime` does.',
    'token_lifetime_exceeded',
    ['exp: far away', 'iat: zero'],
  ],
  [
    'The subject has to be the ServiceAccount of the binding; the API server reads only the latter.',
    'token_malformed',
    [
      'sub: admin',
      'sub: empty',
      'sub: missing',
      'sub: null',
      'sub: other',
      'serviceaccount: another',
    ],
  ],
  [
    'The API server does not compare the ServiceAccount of the token with that of its pod.',
    'pod_mismatch',
    ['serviceaccount and sub: another'],
  ],
  [
    'A good token of another pod, shown from the wrong address.',
    'source_address_mismatch',
    ['pod: another'],
  ],
  [
    'The id goes into logs and memory: its grammar is checked, which the API server leaves out.',
    'token_malformed',
    ['jti: empty', 'jti: long', 'jti: null', 'jti: odd'],
  ],
  [
    'The node goes into headers and logs; a node without a name is invalid.',
    'token_malformed',
    ['node: empty', 'node: null', 'node.name: empty', 'node.name: missing', 'node.name: null'],
  ],
  [
    'Header fields that may change how a signature is read are refused unread (RFC 8725 §3.10).',
    'algorithm_not_allowed',
    [
      'crit: empty',
      'b64: true',
      'zip: DEF',
      'jku: elsewhere',
      'x5u: elsewhere',
      'x5c: empty',
      'alg: PS256',
    ],
  ],
  [
    'The published key names its algorithm and is used for no other.',
    'signing_key_unknown',
    ['alg: RS384', 'alg: RS512'],
  ],
  [
    'A key id that is given has to be the one of a published key; the API server tries them all.',
    'signing_key_unknown',
    ['kid: empty'],
  ],
  ['The same, of a wrong type.', 'token_malformed', ['kid: null']],
  [
    'The API server trims what it is shown; a credential here is a token and nothing else.',
    'credential_malformed',
    ['with a space', 'with a line end'],
  ],
]

/** Since 1.31 the API server looks the key up by an id that is given (kubernetes/kubernetes#125177). */
const REASONS_BEFORE_31: readonly Reason[] = [
  ['The API server tried all its keys, whatever the id.', 'signing_key_unknown', ['kid: unknown']],
  ['The same; such an id is refused unread.', 'token_malformed', ['kid: long']],
]
const LOOKED_UP_SINCE = 31

/** By kind, on an API server of this minor version. */
export const stricterOn = (minor: number): ReadonlyMap<string, Code> => {
  const reasons = minor < LOOKED_UP_SINCE ? [...REASONS, ...REASONS_BEFORE_31] : REASONS
  return new Map(reasons.flatMap(([, code, kinds]) => kinds.map((kind) => [kind, code] as const)))
}
