/** A worker shows at most one credential, in one of four places, and only something token-shaped is looked at. */

import { test } from 'tap'
import { BEARER_SUBPROTOCOL } from '@openclaw-k8s/auth-sidecar/websocket/bearer-subprotocol.ts'
import {
  acceptToken,
  findCredential,
  TOKEN_BYTES_MAX,
} from '@openclaw-k8s/auth-sidecar/authn/credential.ts'

const HEADER = 'X-OpenClaw-SA-Token'
const TOKEN = 'eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln'
const offer = (token: string) => `${BEARER_SUBPROTOCOL}${Buffer.from(token).toString('base64url')}`
const find = (...rawHeaders: string[]) => findCredential(rawHeaders, HEADER)

test('a token is found in each of its four places, whatever the case of the name', async (t) => {
  const places = [
    ['AUTHORIZATION', `Bearer ${TOKEN}`],
    ['authorization', `bEARER   ${TOKEN}`],
    ['x-openclaw-sa-token', TOKEN],
    ['CF-Access-Client-Secret', TOKEN],
    ['Sec-WebSocket-Protocol', `chat, ${offer(TOKEN)} ,other`],
    ['Sec-WebSocket-Protocol', offer(TOKEN).replace('bearer', 'BEARER')],
  ] as const
  for (const [name, value] of places) {
    t.strictSame(find('Host', 'x', name, value), { ok: true, value: { token: TOKEN } }, name)
  }
})

test('a missing credential is not an error by itself', async (t) => {
  t.strictSame(find('Host', 'x', 'Sec-WebSocket-Protocol', 'chat'), { ok: true, value: undefined })
})

test('two credentials, or one repeated, are refused even where they are the same', async (t) => {
  const bearer = ['Authorization', `Bearer ${TOKEN}`]
  const pairs = [
    [...bearer, ...bearer],
    [...bearer, HEADER, TOKEN],
    [HEADER, TOKEN, HEADER.toUpperCase(), TOKEN],
    ['CF-Access-Client-Secret', TOKEN, 'Sec-WebSocket-Protocol', offer(TOKEN)],
    ['Sec-WebSocket-Protocol', `${offer(TOKEN)}, ${offer(TOKEN)}`],
    ['Sec-WebSocket-Protocol', offer(TOKEN), 'Sec-WebSocket-Protocol', offer('other')],
    [...bearer, 'Authorization', ''],
  ]
  for (const headers of pairs) {
    t.strictSame(find(...headers), { ok: false, code: 'credential_repeated' }, headers.join(' '))
  }
})

test('a credential that is not a token is refused', async (t) => {
  const values: readonly (readonly [string, string])[] = [
    ['Authorization', 'Basic dXNlcjpwYXNz'],
    ['Authorization', 'Bearer'],
    ['Authorization', ''],
    ['Authorization', `Bearer ${TOKEN} ${TOKEN}`],
    ['Authorization', `Bearer ${TOKEN},${TOKEN}`],
    ['Authorization', `Bearer "${TOKEN}"`],
    [HEADER, ''],
    [HEADER, 'tokén'],
    ['Sec-WebSocket-Protocol', BEARER_SUBPROTOCOL],
    ['Sec-WebSocket-Protocol', `${BEARER_SUBPROTOCOL}a+b/`],
    ['Sec-WebSocket-Protocol', offer('a\r\nX-Injected: 1')],
    // The same byte as in `YQ`, in another spelling; then a length that no encoding has.
    ['Sec-WebSocket-Protocol', `${BEARER_SUBPROTOCOL}YR`],
    ['Sec-WebSocket-Protocol', `${BEARER_SUBPROTOCOL}YWFhY`],
    ['Sec-WebSocket-Protocol', `${BEARER_SUBPROTOCOL}YQ==`],
  ]
  for (const [name, value] of values) {
    t.strictSame(find(name, value), { ok: false, code: 'credential_malformed' }, `${name} ${value}`)
  }
})

test('a token may have exactly 8 KiB', async (t) => {
  const longest = 'a'.repeat(TOKEN_BYTES_MAX)
  t.strictSame(acceptToken(longest), { ok: true, value: longest })
  const tooLong = { ok: false, code: 'credential_too_large' }
  t.strictSame(acceptToken(`${longest}a`), tooLong)
  t.strictSame(find(HEADER, `${longest}a`), tooLong)
  t.strictSame(find('Sec-WebSocket-Protocol', offer(`${longest}a`)), tooLong)
})
