/** Tokens as a cluster writes them, and changed in their text, spelling and bytes. */

import * as fc from 'fast-check'
import { mutate, mutation } from './bytes.ts'

export const NOW_S = 1_800_000_000
export const ALGORITHMS = ['RS256', 'RS384', 'RS512', 'ES256', 'ES384', 'ES512']

const name = fc.constantFrom('openclaw', 'a', 'worker-0', 'x'.repeat(63))
const uid = fc.uuid()
const extra: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom(null, 0, -0, 1e300, '', '"', '\\', '\u2028', '\ud800', [], {}),
  fc.jsonValue({ maxDepth: 3 }),
)

/** Claims as a cluster writes them, with members nobody reads. */
export const payload = fc
  .record({
    aud: fc.constantFrom<unknown>(
      'openclaw-gateway',
      ['openclaw-gateway'],
      ['a', 'openclaw-gateway'],
    ),
    lifetimeS: fc.integer({ min: 1, max: 90_000 }),
    namespace: name,
    serviceAccount: name,
    pod: name,
    uids: fc.tuple(uid, uid, uid),
    jti: fc.option(uid, { nil: undefined }),
    others: fc.dictionary(fc.constantFrom('warnafter', 'x', '__proto__', 'exp ', ''), extra, {
      maxKeys: 3,
    }),
  })
  .map(({ aud, lifetimeS, namespace, serviceAccount, pod, uids, jti, others }) => ({
    ...others,
    iss: 'https://cluster.example',
    aud,
    sub: `system:serviceaccount:${namespace}:${serviceAccount}`,
    iat: NOW_S,
    nbf: NOW_S,
    exp: NOW_S + lifetimeS,
    jti,
    'kubernetes.io': {
      namespace,
      serviceaccount: { name: serviceAccount, uid: uids[0] },
      pod: { name: pod, uid: uids[1] },
      node: { name: 'node-1', uid: uids[2] },
    },
  }))

export const header = fc.record({
  alg: fc.oneof(
    { weight: 9, arbitrary: fc.constantFrom(...ALGORITHMS) },
    { weight: 1, arbitrary: fc.constantFrom('none', 'HS256', 'rs256') },
  ),
  kid: fc.option(fc.string({ maxLength: 10 }), { nil: undefined }),
})

/** Every way to write a name: as it is, or some letters escaped. */
const spell = (text: string, escapes: readonly boolean[]): string => {
  const letters = text
    .split('')
    .map((letter, nth) =>
      escapes[nth % Math.max(escapes.length, 1)] === true
        ? `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`
        : letter,
    )
  return `"${letters.join('')}"`
}

/** A member that is put in at the start or the end of some object of a text. */
type Twin = {
  readonly name: string
  readonly escapes: readonly boolean[]
  readonly value: string
  /** Which brace. */
  readonly nth: number
  /** A member that makes up for the quotation marks a lost one would take away. */
  readonly makeUp: boolean
}

const twin: fc.Arbitrary<Twin> = fc.record({
  name: fc.constantFrom(
    'exp',
    'iss',
    'aud',
    'kubernetes.io',
    'pod',
    'name',
    'uid',
    'alg',
    'kid',
    'zz',
  ),
  escapes: fc.array(fc.boolean(), { maxLength: 4 }),
  value: fc.constantFrom('1', '"x"', 'null', '[]', '{}', '1e999', '-0', '{"uid":"y","uid":"z"}'),
  nth: fc.nat(4),
  makeUp: fc.boolean(),
})

const withTwin = (text: string, { name: key, escapes, value, nth, makeUp }: Twin): string => {
  const braces = [...text.matchAll(/\{/g)].map(({ index }) => index)
  const at = braces[nth % Math.max(braces.length, 1)]
  if (at === undefined) return text
  const filler = makeUp ? String.raw`"${'y'}":"\u0022\u0022",` : ''
  const comma = text[at + 1] === '}' ? '' : ','
  return `${text.slice(0, at + 1)}${filler}${spell(key, escapes)}:${value}${comma}${text.slice(at + 1)}`
}

const number = fc.constantFrom(
  '1800000001',
  '1.8000001e9',
  '18000001E+2',
  '01800000001',
  '+1',
  '1.',
  '.5',
  '0x6b49d201',
  '1e400',
  'NaN',
)

/** Changes to the text of a part, before it is encoded. */
const texts = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<Buffer> =>
  fc
    .record({
      value,
      indent: fc.constantFrom('', ' ', '\t', '\n'),
      twins: fc.oneof(
        { weight: 3, arbitrary: fc.constant([]) },
        { weight: 2, arbitrary: fc.array(twin, { maxLength: 2 }) },
      ),
      exp: fc.option(number, { nil: undefined, freq: 3 }),
      runtime: fc.constantFrom(
        ['', ''],
        ['', ''],
        ['', ''],
        ['\uFEFF', ''],
        [' ', '\n'],
        ['', '\0'],
        ['', '{}'],
      ),
      // Bytes behind a quotation mark are inside a string, more often than not.
      quoted: fc.option(
        fc.tuple(fc.nat(40), fc.constantFrom('80', 'c0af', 'eda080', 'f4908080', 'c3a9')),
        { nil: undefined, freq: 2 },
      ),
      mutations: fc.oneof(
        { weight: 3, arbitrary: fc.constant([]) },
        { weight: 1, arbitrary: fc.array(mutation, { maxLength: 2 }) },
      ),
    })
    .map(({ value: json, indent, twins, exp, runtime, quoted, mutations }) => {
      const plain = JSON.stringify(json, undefined, indent)
      const numbered = exp === undefined ? plain : plain.replace(/("exp": ?)\d+/, `$1${exp}`)
      const twinned = (twins as readonly Twin[]).reduce(withTwin, numbered)
      const whole = Buffer.from(`${runtime[0]}${twinned}${runtime[1]}`)
      return mutate(quoted === undefined ? whole : behindQuote(whole, quoted), mutations)
    })

const behindQuote = (text: Buffer, [nth, hex]: readonly [number, string]): Buffer => {
  const quotes = [...text.entries()].filter(([, byte]) => byte === 0x22).map(([at]) => at)
  const at = (quotes[nth % Math.max(quotes.length, 1)] ?? 0) + 1
  return Buffer.concat([text.subarray(0, at), Buffer.from(hex, 'hex'), text.subarray(at)])
}

export const token = fc
  .tuple(texts(header), texts(payload), fc.uint8Array({ minLength: 1, maxLength: 8 }))
  .map((parts) => parts.map((part) => Buffer.from(part).toString('base64url')).join('.'))
