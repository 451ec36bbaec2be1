/** Upgrade requests and what may follow them: good, odd, or mutated. */

import * as fc from 'fast-check'
import { bytes, frameOf, frames, mutate, mutation, type Mutation } from './bytes.ts'
import { course, type Course } from './connection.ts'

/** Stands for the pod's good token, or for one with an invalid signature. */
const TOKEN = '<token>'
const FORGED = '<forged>'

/** A text can hold a token; a message is a text in a separate frame. */
type Part = { readonly text: string } | { readonly message: string } | { readonly wire: Buffer }

export type Hostile = {
  readonly parts: readonly Part[]
  readonly mutations: readonly Mutation[]
  readonly course: Course
  readonly isTls: boolean
}

const ZERO_MASK = Buffer.alloc(4)

const often = <T>(usual: T, ...others: readonly T[]): fc.Arbitrary<T> =>
  fc.oneof(
    { weight: 12, arbitrary: fc.constant(usual) },
    { weight: 1, arbitrary: fc.constantFrom(...others) },
  )

const field = fc.constantFrom(
  'Content-Length: 10',
  'Content-Length: 0',
  'Content-Length: -1',
  'Content-Length: 10, 10',
  'Content-Length: 99999999999999999999',
  'Transfer-Encoding: chunked',
  'Transfer-Encoding: gzip, chunked',
  'Transfer-Encoding : chunked',
  'Transfer-Encoding: identity',
  'Expect: 100-continue',
  'Expect: what',
  'Trailer: a',
  'TE: trailers',
  'Upgrade: h2c',
  'Upgrade: websocket, h2c',
  'Connection: close',
  'Connection: keep-alive',
  'Connection: upgrade, x-forwarded-for',
  'Host: other',
  'Host:',
  'X-Forwarded-For: 127.0.0.1',
  'X_Forwarded_User: root',
  'Origin: http://evil',
  'Sec-WebSocket-Extensions: permessage-deflate',
  'Sec-WebSocket-Protocol: a, b',
  'Sec-WebSocket-Protocol: ,',
  'Sec-WebSocket-Version: 8',
  'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
  'Cookie: a=b',
  ' folded: line',
  'no colon',
  ': no name',
  'a\0b: c',
  'a: b\rc',
  `X-Long: ${'x'.repeat(17_000)}`,
  'Authorization: Basic YTpi',
  'X-OpenClaw-Role: node',
  'traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
  'User-Agent: \u00ff',
  'HTTP2-Settings: AAMAAABkAAQAAP__',
)

const credential = fc.oneof(
  { weight: 4, arbitrary: fc.constant<string | undefined>(undefined) },
  { weight: 3, arbitrary: fc.constant(`Authorization: Bearer ${TOKEN}`) },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      `Authorization: Bearer ${FORGED}`,
      `Authorization: bearer  ${FORGED}`,
      `X-OpenClaw-SA-Token: ${FORGED}`,
      'Authorization: Bearer a.b.c',
      `Authorization: Bearer ${'a'.repeat(9000)}`,
      'Authorization: Bearer',
      'Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.YQ',
    ),
  },
)

const head = fc
  .record({
    method: often('GET', 'POST', 'CONNECT', 'HEAD', 'OPTIONS', 'TRACE', 'PRI', 'get', 'BREW', ''),
    target: often(
      '/',
      '*',
      'a:1',
      '//',
      '/?a=b',
      '/a?token=eyJhbGciOiJub25lIn0.e30.x',
      '/%2e%2e/',
      'http://a/',
      '/\u00e9',
      `/${'a'.repeat(5000)}`,
      '',
    ),
    version: often('HTTP/1.1', 'HTTP/1.0', 'HTTP/2.0', 'HTTP/0.9', 'HTP', ''),
    dropped: fc.oneof(
      { weight: 3, arbitrary: fc.constant(-1) },
      { weight: 1, arbitrary: fc.nat(4) },
    ),
    credential,
    fields: fc.array(field, { maxLength: 3 }),
    at: fc.nat(6),
    eol: often('\r\n', '\n', '\r', '\r\n\r\n'),
  })
  .map(({ method, target, version, dropped, credential: shown, fields, at, eol }) => {
    const usual = [
      'Host: localhost',
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ].filter((_, nth) => nth !== dropped)
    const lines = [...usual.slice(0, at), ...fields, ...usual.slice(at)]
    const all = [
      `${method} ${target} ${version}`,
      ...lines,
      ...(shown === undefined ? [] : [shown]),
    ]
    return { text: `${all.join(eol)}${eol}${eol}` }
  })

const message = fc
  .constantFrom(TOKEN, FORGED, 'a.b.c', '')
  .chain((saToken) =>
    fc.constantFrom(
      { type: 'connect.request', authMode: 'k8s-sa', saToken, role: 'node' },
      { type: 'connect.request', authMode: 'k8s-sa', saToken, role: 'operator' },
      { type: 'connect.request', authMode: 'none', saToken },
      { type: 'req', id: '1', method: 'connect', params: {} },
    ),
  )
  .map((content) => ({ message: JSON.stringify(content) }))

const behind: fc.Arbitrary<Part> = fc.oneof(
  { weight: 3, arbitrary: message },
  {
    weight: 4,
    arbitrary: frames(true)
      .filter((wire) => wire.length < 20_000)
      .map((wire) => ({ wire })),
  },
  {
    weight: 2,
    arbitrary: fc
      .constantFrom(
        'abc',
        '5\r\nab',
        '1\r\na\r\n0\r\n\r\n',
        'zz\r\n',
        '0\r\nTrailer: a\r\n\r\n',
        'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
      )
      .map((text) => ({ text })),
  },
  { weight: 2, arbitrary: head },
  { weight: 1, arbitrary: bytes(100).map((wire) => ({ wire })) },
)

const hostile: fc.Arbitrary<Hostile> = fc.record({
  parts: fc.oneof(
    {
      weight: 8,
      arbitrary: fc
        .tuple(head, fc.array(behind, { maxLength: 3 }))
        .map(([first, rest]) => [first, ...rest]),
    },
    { weight: 1, arbitrary: fc.array(behind, { maxLength: 3 }) },
  ),
  mutations: fc.oneof(
    { weight: 3, arbitrary: fc.constant([]) },
    { weight: 1, arbitrary: fc.array(mutation, { maxLength: 3 }) },
  ),
  course,
  isTls: fc.nat(5).map((n) => n === 0),
})

/** A few at the same time, so that they meet each other. */
export const group = fc.array(hostile, { minLength: 1, maxLength: 6 })

export const bytesOf = ({ parts, mutations }: Hostile, token: string): Buffer => {
  const fill = (text: string): Buffer =>
    Buffer.from(text.replaceAll(TOKEN, token).replaceAll(FORGED, forge(token)), 'latin1')
  const rendered = parts.map((part) => {
    if ('wire' in part) return part.wire
    if ('text' in part) return fill(part.text)
    return frameOf({ first: 0x81, masked: true, payload: fill(part.message), mask: ZERO_MASK })
  })
  return mutate(Buffer.concat(rendered), mutations)
}

/** Another signature of the same length. */
const forge = (token: string): string => {
  const at = token.lastIndexOf('.') + 1
  return token.slice(0, at) + token.slice(at).split('').toReversed().join('')
}

export const isProven = ({ parts }: Hostile): boolean => JSON.stringify(parts).includes(TOKEN)
