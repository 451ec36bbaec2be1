/** The claims reader against a strict JSON parser: what it accepts, two parsers can only read alike. */

import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict'
import * as fc from 'fast-check'
import { readClaims, type ClaimRules } from '@openclaw-k8s/auth-sidecar/authn/claims.ts'
import type { Verdict } from '@openclaw-k8s/auth-sidecar/denial.ts'
import type { Claims } from '@openclaw-k8s/auth-sidecar/identity.ts'
import { NotStrict, parseStrictly, type Json, type JsonObject } from './strict-json.ts'
import { promiseOf, pureTarget, type Target } from './target.ts'
import { ALGORITHMS, NOW_S, header, payload, token } from './tokens.ts'

export type ReadClaims = (token: string) => Verdict<Claims>

const RULES: ClaimRules = {
  issuers: () => ['https://cluster.example'],
  audiences: ['openclaw-gateway'],
  maxTokenLifetimeMs: 90_000_000,
  isListed: () => true,
}

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
          // A separate promise checks them.
          if (!isTwinned(error)) throw error
        }
      },
    ),
    promiseOf(
      { promise: 'an accepted token has no duplicate member, however it is spelled', runs: 125 },
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
      { promise: 'any text has a verdict', runs: 75 },
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
