/** What a stranger sends is read in linear time: with these sizes, quadratic work would never end. */

import { test } from 'tap'
import { holdsToken } from '@openclaw-k8s/auth-sidecar/authn/token-shape.ts'
import { readConnect } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/frames.ts'
import { filterSurface } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-connect.ts'
import { validateUpgrade, type RequestHead } from '@openclaw-k8s/auth-sidecar/edge/upgrade.ts'
import { globMatcher } from '@openclaw-k8s/auth-sidecar/lib/glob.ts'
import { judgeResponseHead } from '@openclaw-k8s/auth-sidecar/websocket/response-head.ts'

/** A small generator, so that every run tries the same cases. */
function* pick(seed: number, parts: readonly string[], lengthMax: number): Generator<string> {
  let state = seed
  const next = (below: number) => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    return Math.floor((state / 2 ** 31) * below)
  }
  for (;;) yield Array.from({ length: next(lengthMax) }, () => parts[next(parts.length)]).join('')
}

/** The glob as a backtracking expression: short names only. */
function globExpression(pattern: string): RegExp {
  const source = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll(/\*+/g, '.*')
    .replaceAll('?', '.')
  return new RegExp(`^${source}$`)
}

test('a glob matches what the equivalent expression matches', async (t) => {
  const patterns = pick(1, ['a', 'b', '*', '?', '.', '-', '(', '$'], 9)
  const names = pick(2, ['a', 'b', '.', '-', '(', '\n', '*', '?'], 10)
  let matches = 0
  let wrong = ''
  for (let round = 0; round < 40_000; round += 1) {
    const pattern = patterns.next().value
    const name = names.next().value
    const expected = globExpression(pattern).test(name)
    if (expected) matches += 1
    if (globMatcher(pattern)(name) !== expected) wrong += `${JSON.stringify([pattern, name])} `
  }
  t.equal(wrong, '')
  t.ok(matches > 500, `${matches} of them match`)
})

test('a glob with many wildcards fails fast on a name that does not match', async (t) => {
  const dashes = '-'.repeat(100_000)
  t.equal(globMatcher(`${'*-'.repeat(40)}*worker`)(`a${dashes}b`), false)
  t.equal(globMatcher(`${'*-'.repeat(40)}*worker`)(`a${dashes}worker`), true)
  t.equal(globMatcher(`${'*?-'.repeat(40)}*x?`)(`a${dashes}`), false)
  const commands = Array.from({ length: 30 }, (_, at) => `${'.'.repeat(240)}${at}`)
  t.strictSame(filterSurface({ commands }, ['*.*.*.*.*.*.*.x']).commands, [])
  t.strictSame(filterSurface({ commands }, ['*.*.*.*.*.*.*.1?']).commands, commands.slice(10, 20))
})

test('the globs of a policy are read once, not for each worker', async (t) => {
  let reads = 0
  const allowed = new Proxy(['canvas.*'], {
    get(target, name, receiver) {
      if (name === '0') reads += 1
      return Reflect.get(target, name, receiver)
    },
  })
  for (let worker = 0; worker < 3; worker += 1) {
    t.strictSame(filterSurface({ commands: ['canvas.a', 'system.b'] }, allowed).commands, [
      'canvas.a',
    ])
  }
  t.equal(reads, 2, 'as one of the globs, and whether it allows everything')
})

test('a connect has a bounded number of items to check against the policy', async (t) => {
  const connect = (params: object) =>
    readConnect(
      JSON.stringify({
        type: 'req',
        id: '1',
        method: 'connect',
        params: {
          minProtocol: 4,
          maxProtocol: 4,
          client: { id: 'node-host', mode: 'node', version: '1', platform: 'linux' },
          ...params,
        },
      }),
    ).ok
  const commands = (count: number) => Array.from({ length: count }, () => 'c'.repeat(256))
  const permissions = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, at) => [`p${at}`, true]))
  t.equal(connect({ commands: commands(32), permissions: permissions(256) }), true)
  t.equal(connect({ commands: [...commands(32), 'c'] }), false)
  t.equal(connect({ permissions: permissions(257) }), false)
  t.equal(connect({ permissions: { camera: 'yes' } }), false)
  t.equal(connect({ permissions: [] }), false)
})

test('a token is found in a query by its shape, plain or encoded up to twice', async (t) => {
  const shape = /eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*/
  const decode = (text: string) =>
    text.replaceAll(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    )
  const parts = [
    'eyJ',
    'eyJ',
    'e',
    'yJ',
    'aaaaaaaa',
    'bbbb',
    '.',
    '.',
    '.',
    '%2e',
    '%65',
    '%25',
    '2e',
    '&',
    '=',
    '-',
    '%',
  ]
  const queries = pick(3, parts, 16)
  let tokens = 0
  let wrong = ''
  for (let round = 0; round < 40_000; round += 1) {
    const query = queries.next().value
    const decoded = decode(query)
    const expected = [query, decoded, decode(decoded)].some((text) => shape.test(text))
    if (expected) tokens += 1
    if (holdsToken(query) !== expected) wrong += `${query} `
  }
  t.equal(wrong, '')
  t.equal(holdsToken('to=%2F%3Ftoken%3DeyJhbGciOiJub25l%2Ee30%2E'), true, 'encoded')
  t.equal(holdsToken('to=%252F%253Ftoken%253D%2565yJhbGciOiJub25l%252Ee30%252E'), true, 'twice')
  t.equal(holdsToken('to=%252F%253Ftoken%253D%2565yJhbGciOiJub25l%252Ee30'), false, 'two parts')
  t.ok(tokens > 100, `${tokens} of them hold one`)
})

test('a query full of token beginnings is read only once', async (t) => {
  const many = 200_000
  t.equal(holdsToken('eyJ'.repeat(many)), false)
  t.equal(holdsToken('%65yJ'.repeat(many)), false)
  t.equal(holdsToken('eyJaaaaaaaa.'.repeat(many).replaceAll('.', '..')), false)
  t.equal(holdsToken(`${'eyJ'.repeat(many)}.e30.`), true)
})

test('blanks in an answer of the gateway are trimmed in linear time', async (t) => {
  const awaited = { key: 'k', subprotocols: [] }
  const judge = (field: string) => judgeResponseHead(`HTTP/1.1 101 x\r\n${field}`, awaited)
  const malformed = { ok: false, reason: 'a header of the 101 is malformed' }
  const blanks = ' \t'.repeat(300_000)
  t.strictSame(judge(`x:${blanks}\x01`), malformed)
  t.strictSame(judge(`x:${blanks}y${blanks}\x01`), malformed)
  t.strictSame(judge(`upgrade:${blanks}h2c${blanks}`), {
    ok: false,
    reason: 'the 101 does not upgrade to websocket',
  })
  t.strictSame(judge(`upgrade:${blanks}websocket${blanks}`), {
    ok: false,
    reason: 'the 101 has no Connection: upgrade',
  })
  t.strictSame(judge('x:y\r\n'.repeat(300_000).trimEnd()), {
    ok: false,
    reason: 'the 101 does not upgrade to websocket',
  })
})

test('a worker may offer 32 subprotocols of 256 characters, and no more', async (t) => {
  const isValid = (offers: string) =>
    validateUpgrade({
      method: 'GET',
      httpVersion: '1.1',
      url: '/',
      rawHeaders: [],
      headersDistinct: {
        host: ['a'],
        upgrade: ['websocket'],
        connection: ['upgrade'],
        'sec-websocket-version': ['13'],
        'sec-websocket-key': ['dGhlIHNhbXBsZSBub25jZQ=='],
        'sec-websocket-protocol': offers.split(';'),
      },
    } satisfies RequestHead).ok
  const offers = (count: number) => Array.from({ length: count }, (_, at) => `p${at}`)
  t.equal(isValid(offers(32).join(', ')), true)
  t.equal(isValid(offers(33).join(', ')), false)
  t.equal(isValid(`${offers(20).join(', ')};${offers(20).join('x, ')}`), false, 'in two headers')
  t.equal(isValid('a'.repeat(256)), true)
  t.equal(isValid('a'.repeat(257)), false)
  t.equal(isValid(`base64url.bearer.authorization.k8s.io.${'a'.repeat(9000)}`), true, 'a token')
})
