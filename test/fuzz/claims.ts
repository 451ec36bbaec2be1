/** The claims reader against a strict JSON parser: what it accepts, two parsers can only read alike. */

import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict'
import * as fc from 'fast-check'
import { readClaims, type ClaimRules } from '@openclaw-k8s/auth-sidecar/authn/claims.ts'
import type { Verdict } from '@openclaw-k8s/auth-sidecar/denial.ts'
import type { Claims } from '@openclaw-k8s/auth-sidecar/identity.ts'
import { mutate, mutation } from './bytes.ts'
import { NotStrict, parseStrictly, type Json, type JsonObject } from './strict-json.ts'
import { promiseOf, pureTarget, type Target } from './target.ts'

export type ReadClaims = (token: string) => Verdict<Claims>

const NOW_S = 1_800_000_000
const RULES: ClaimRules = {
  issuers: () => ['https://cluster.example'],
  audiences: ['openclaw-gateway'],
  maxTokenLifetimeMs: 90_000_000,
  isListed: () => true,
}
const ALGORITHMS = ['RS256', 'RS384', 'RS512', 'ES256', 'ES384', 'ES512']

const name = fc.constantFrom('openclaw', 'a', 'worker-0', 'x'.repeat(63))
const uid = fc.uuid()
const extra: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom(null, 0, -0, 1e300, '', '"', '\\', '\u2028', '\ud800', [], {}),
  fc.jsonValue({ maxDepth: 3 }),
)

/** Claims as a cluster writes them, with members nobody reads. */
const payload = fc
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

const header = fc.record({
  alg: fc.oneof(
    { weight: 9, arbitrary: fc.constantFrom(...ALGORITHMS) },
    { weight: 1, arbitrary: fc.constantFrom('none', 'HS256', 'rs256') },
  ),
  kid: fc.option(fc.string({ maxLength: 10 }), { nil: undefined }),
})

/** Every way to write a name: as it is, or some letters escaped. */
const spelt = (text: string, escapes: readonly boolean[]): string => {
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
  return `${text.slice(0, at + 1)}${filler}${spelt(key, escapes)}:${value}${comma}${text.slice(at + 1)}`
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
      around: fc.constantFrom(
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
    .map(({ value: json, indent, twins, exp, around, quoted, mutations }) => {
      const plain = JSON.stringify(json, undefined, indent)
      const numbered = exp === undefined ? plain : plain.replace(/("exp": ?)\d+/, `$1${exp}`)
      const twinned = (twins as readonly Twin[]).reduce(withTwin, numbered)
      const whole = Buffer.from(`${around[0]}${twinned}${around[1]}`)
      return mutate(quoted === undefined ? whole : behindQuote(whole, quoted), mutations)
    })

const behindQuote = (text: Buffer, [nth, hex]: readonly [number, string]): Buffer => {
  const quotes = [...text.entries()].filter(([, byte]) => byte === 0x22).map(([at]) => at)
  const at = (quotes[nth % Math.max(quotes.length, 1)] ?? 0) + 1
  return Buffer.concat([text.subarray(0, at), Buffer.from(hex, 'hex'), text.subarray(at)])
}

const token = fc
  .tuple(texts(header), texts(payload), fc.uint8Array({ minLength: 1, maxLength: 8 }))
  .map((parts) => parts.map((part) => Buffer.from(part).toString('base64url')).join('.'))

type Read = { readonly claims: Claims; readonly head: JsonObject; readonly body: JsonObject }

/** What was accepted, with both parts as the strict parser reads them; it throws where it cannot. */
const readBoth = (subject: ReadClaims, text: string): Read | undefined => {
  const verdict = subject(text)
  if (!verdict.ok) return undefined
  const [head = '', body = ''] = text.split('.')
  return {
    claims: verdict.value,
    head: objectOf(parseStrictly(Buffer.from(head, 'base64url'))),
    body: objectOf(parseStrictly(Buffer.from(body, 'base64url'))),
  }
}

const objectOf = (value: Json | undefined): JsonObject => {
  ok(value instanceof Map, 'not an object')
  return value
}
const textOf = (object: JsonObject, key: string): string => {
  const value = object.get(key)
  ok(typeof value === 'string', `${key} is not text`)
  return value
}

/** Whether a part has a member twice and is strict JSON otherwise. */
const isTwinned = (error: unknown): boolean =>
  error instanceof NotStrict && error.message.endsWith(' twice')

const checkAlike = ({ claims, head, body }: Read): void => {
  ok(ALGORITHMS.includes(textOf(head, 'alg')))
  const bound = objectOf(body.get('kubernetes.io'))
  const account = objectOf(bound.get('serviceaccount'))
  const pod = objectOf(bound.get('pod'))
  const audience = body.get('aud')
  deepStrictEqual(
    {
      issuer: claims.issuer,
      audiences: claims.audiences,
      expiresAt: claims.expiresAt,
      namespace: claims.namespace,
      serviceAccount: claims.serviceAccount,
      serviceAccountUid: claims.serviceAccountUid,
      podName: claims.podName,
      podUid: claims.podUid,
    },
    {
      issuer: textOf(body, 'iss'),
      audiences: typeof audience === 'string' ? [audience] : audience,
      expiresAt: body.get('exp'),
      namespace: textOf(bound, 'namespace'),
      serviceAccount: textOf(account, 'name'),
      serviceAccountUid: textOf(account, 'uid'),
      podName: textOf(pod, 'name'),
      podUid: textOf(pod, 'uid'),
    },
  )
}

export const claimsTarget = (
  subject: ReadClaims = (text) => readClaims(text, RULES, NOW_S * 1000),
): Target =>
  pureTarget('claims', [
    promiseOf(
      { promise: 'an accepted token is strict JSON, and every value is read alike', runs: 125 },
      token,
      (text) => {
        try {
          const read = readBoth(subject, text)
          if (read !== undefined) checkAlike(read)
        } catch (error) {
          // A promise of its own looks at them.
          if (!isTwinned(error)) throw error
        }
      },
    ),
    promiseOf(
      { promise: 'no member stands twice in an accepted token, however it is spelt', runs: 125 },
      token,
      (text) => {
        try {
          readBoth(subject, text)
        } catch (error) {
          ok(!isTwinned(error), String(error))
        }
      },
    ),
    promiseOf(
      { promise: 'every part of an accepted token encodes back to itself', runs: 125 },
      fc.record({
        parts: fc.tuple(header, payload, fc.uint8Array({ minLength: 1, maxLength: 4 })),
        nth: fc.nat(2),
        /** What stands for the last character of that part. */
        last: fc.constantFrom(...'ABCDEFGHwxyz0189-_'.split('')),
        ending: fc.constantFrom('', '', '', '=', '==', 'A', '\n'),
      }),
      ({ parts: [head, body, signature], nth, last, ending }) => {
        const encoded = [JSON.stringify(head), JSON.stringify(body), signature].map((part) =>
          Buffer.from(part).toString('base64url'),
        )
        encoded[nth] = `${encoded[nth]?.slice(0, -1)}${last}${ending}`
        if (!subject(encoded.join('.')).ok) return
        for (const part of encoded) {
          strictEqual(Buffer.from(part, 'base64url').toString('base64url'), part)
        }
      },
    ),
    promiseOf(
      { promise: 'a token as a cluster writes it is accepted', runs: 50 },
      fc.tuple(
        fc.constantFrom(...ALGORITHMS),
        payload,
        fc.uint8Array({ minLength: 64, maxLength: 64 }),
      ),
      ([alg, body, signature]) => {
        const parts = [
          JSON.stringify({ alg, kid: 'k' }),
          JSON.stringify(withoutOthers(body)),
          signature,
        ]
        const verdict = subject(
          parts.map((part) => Buffer.from(part).toString('base64url')).join('.'),
        )
        strictEqual(verdict.ok ? 'ok' : verdict.code, 'ok')
      },
    ),
    promiseOf(
      { promise: 'any text at all has a verdict', runs: 75 },
      fc.oneof(
        fc.string({ unit: 'binary', maxLength: 200 }),
        fc.array(fc.string({ maxLength: 20 }), { maxLength: 5 }).map((parts) => parts.join('.')),
        fc
          .nat(4000)
          .map((depth) =>
            ['{"alg":"RS256"}', '['.repeat(depth) + ']'.repeat(depth), 'x']
              .map((part) => Buffer.from(part).toString('base64url'))
              .join('.'),
          ),
      ),
      (text) => strictEqual(typeof subject(text).ok, 'boolean'),
    ),
  ])

const KNOWN = new Set(['iss', 'aud', 'sub', 'iat', 'nbf', 'exp', 'jti', 'kubernetes.io'])

const withoutOthers = (body: object): object =>
  Object.fromEntries(Object.entries(body).filter(([key]) => KNOWN.has(key)))
