/** What can be wrong with a token: every field of its header and claims, changed in every way we could think of. */

import { randomUUID } from 'node:crypto'
import type { Json } from './api.ts'

export type Parts = { readonly header: Json; readonly claims: Json }

/** What a mutation may refer to besides the token itself. */
export type Scene = {
  readonly nowS: number
  /** Another live pod of the same ServiceAccount. */
  readonly otherPod: Json
  /** Another ServiceAccount of the allow-list. */
  readonly otherAccount: { readonly name: string; readonly uid: string }
  readonly ownAudience: string
}

type Mutation = (parts: Parts, scene: Scene) => Parts

const header =
  (changes: Json): Mutation =>
  (parts) => ({ ...parts, header: { ...parts.header, ...changes } })

const claims =
  (changes: Json | ((scene: Scene, claims: Json) => Json)): Mutation =>
  (parts, scene) => ({
    ...parts,
    claims: {
      ...parts.claims,
      ...(typeof changes === 'function' ? changes(scene, parts.claims) : changes),
    },
  })

/** A change within `kubernetes.io`. */
const bound = (changes: Json | ((scene: Scene, bound: Bound) => Json)): Mutation =>
  claims((scene, { 'kubernetes.io': before }) => {
    const own = before as Bound
    const change = typeof changes === 'function' ? changes(scene, own) : changes
    return { 'kubernetes.io': { ...own, ...change } }
  })

type Bound = Readonly<Record<'namespace', string>> &
  Readonly<Record<'pod' | 'serviceaccount' | 'node', Json>>

const GONE = undefined
/** Values of a wrong type, for fields that are text and for those that are numbers. */
const NO_TEXT: Json = { number: 7, null: null, list: ['a'], object: {}, missing: GONE, empty: '' }
const NO_TIME: Json = { text: '7', null: null, list: [7], negative: -1, missing: GONE }

const each = (field: string, values: Json, mutate: (change: Json) => Mutation) =>
  Object.entries(values).map(
    ([name, value]) => [`${field}: ${name}`, mutate({ [field]: value })] as const,
  )

const within = (member: 'pod' | 'serviceaccount' | 'node', values: Json, field: string) =>
  Object.entries(values).map(
    ([name, value]) =>
      [
        `${member}.${field}: ${name}`,
        bound((_, own) => ({ [member]: { ...own[member], [field]: value } })),
      ] as const,
  )

const HEADER: readonly (readonly [string, Mutation])[] = [
  ...each('kid', { ...NO_TEXT, unknown: 'unknown', long: 'k'.repeat(300) }, header),
  ...each('typ', { JWT: 'JWT', other: 'at+jwt', number: 7 }, header),
  ...each('cty', { JWT: 'JWT' }, header),
  ...each('crit', { exp: ['exp'], empty: [] }, header),
  ...each('b64', { false: false, true: true }, header),
  ...each('zip', { DEF: 'DEF' }, header),
  ...each('jku', { elsewhere: 'https://keys.example/jwks' }, header),
  ...each('x5u', { elsewhere: 'https://keys.example/x5u' }, header),
  ...each('x5c', { empty: [] }, header),
  ...each('jwk', { symmetric: { kty: 'oct', k: 'AAAA' } }, header),
  ...each('unknown', { field: 'value' }, header),
]

const ISSUE: readonly (readonly [string, Mutation])[] = [
  ...each('iss', { ...NO_TEXT, other: 'https://another.example' }, claims),
  ['iss: with a slash more', claims((_, { iss }) => ({ iss: `${String(iss)}/` }))],
  ['iss: as a list', claims((_, { iss }) => ({ iss: [iss] }))],
  ...each('aud', { ...NO_TEXT, other: ['another'], 'empty list': [], 'no text': [7] }, claims),
  ['aud: as text', claims(({ ownAudience }) => ({ aud: ownAudience }))],
  ['aud: one of two', claims(({ ownAudience }) => ({ aud: ['another', ownAudience] }))],
  ['aud: in capitals', claims(({ ownAudience }) => ({ aud: [ownAudience.toUpperCase()] }))],
  ...each('sub', { ...NO_TEXT, other: 'system:serviceaccount:default:default' }, claims),
  ...each('sub', { admin: 'admin' }, claims),
  ...each('jti', { ...NO_TEXT, long: 'j'.repeat(200), odd: 'a b' }, claims),
  ['jti: other', claims(() => ({ jti: randomUUID() }))],
  ...each('unknown', { claim: 'value' }, claims),
]

const TIME: readonly (readonly [string, Mutation])[] = [
  ...each('exp', { ...NO_TIME, zero: 0, 'far away': 4e9, beyond: 1e300 }, claims),
  ['exp: with a fraction', claims(({ nowS }) => ({ exp: nowS + 600.5 }))],
  ...each('nbf', { ...NO_TIME, zero: 0, 'far away': 4e9 }, claims),
  ['nbf: soon', claims(({ nowS }) => ({ nbf: nowS + 30 }))],
  ['nbf: in 2 minutes', claims(({ nowS }) => ({ nbf: nowS + 120 }))],
  ...each('iat', { ...NO_TIME, zero: 0, 'far away': 4e9 }, claims),
  ['iat: soon', claims(({ nowS }) => ({ iat: nowS + 30 }))],
  ['iat: in 2 minutes', claims(({ nowS }) => ({ iat: nowS + 120 }))],
  ['iat and nbf: missing', claims({ iat: GONE, nbf: GONE })],
]

const BINDING: readonly (readonly [string, Mutation])[] = [
  ...each('kubernetes.io', { missing: GONE, null: null, text: 'a', list: [], empty: {} }, claims),
  ...each('namespace', { ...NO_TEXT, other: 'default', capitals: 'OPENCLAW' }, bound),
  ...each('pod', { null: null, text: 'a', list: [], empty: {}, missing: GONE }, bound),
  ...within('pod', { ...NO_TEXT, unknown: 'nobody' }, 'name'),
  ...within('pod', { ...NO_TEXT, unknown: randomUUID(), odd: 'a b' }, 'uid'),
  ['pod: another', bound(({ otherPod }) => ({ pod: otherPod }))],
  [
    "pod.name: another's",
    bound(({ otherPod }, { pod }) => ({ pod: { ...pod, name: otherPod['name'] } })),
  ],
  [
    "pod.uid: another's",
    bound(({ otherPod }, { pod }) => ({ pod: { ...pod, uid: otherPod['uid'] } })),
  ],
  ...each('serviceaccount', { null: null, text: 'a', empty: {}, missing: GONE }, bound),
  ...within('serviceaccount', { ...NO_TEXT, unknown: 'nobody' }, 'name'),
  ...within('serviceaccount', { ...NO_TEXT, unknown: randomUUID() }, 'uid'),
  ['serviceaccount: another', bound(({ otherAccount }) => ({ serviceaccount: otherAccount }))],
  [
    'serviceaccount and sub: another',
    (parts, scene) => {
      const { namespace } = parts.claims['kubernetes.io'] as Bound
      const sub = `system:serviceaccount:${namespace}:${scene.otherAccount.name}`
      const moved = bound({ serviceaccount: scene.otherAccount })(parts, scene)
      return { ...moved, claims: { ...moved.claims, sub } }
    },
  ],
  ...each('node', { null: null, text: 'a', empty: {}, missing: GONE }, bound),
  ...within('node', { ...NO_TEXT, unknown: 'nowhere' }, 'name'),
  ...within('node', { ...NO_TEXT, unknown: randomUUID() }, 'uid'),
  ...each('secret', { another: { name: 'a', uid: 'b' } }, bound),
  ...each('warnafter', { past: 1, text: 'a' }, bound),
]

export const MUTATIONS = [...HEADER, ...ISSUE, ...TIME, ...BINDING]

/** `exp` from well past to just ahead. */
export const EDGES = Array.from({ length: 76 }, (_, n) => n - 70).map((offset) => {
  // The API server's 60 s, and a little for the time a test takes.
  const kind = offset > 0 ? 'about to expire' : offset < -62 ? 'expired' : 'expired, in the leeway'
  // Ahead by more than the test takes to ask both.
  const seconds = offset > 0 ? offset * 20 : offset
  const mutate = claims(({ nowS }) => ({ exp: nowS + seconds }))
  return [kind, mutate] as const
})
