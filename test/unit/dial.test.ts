/** A tunnel is opened by a perfect 101 alone; every other answer ends both sockets. */

import { test, type Test } from 'tap'

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, Socket, type AddressInfo } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { WebSocketServer } from 'ws'

import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import { GatewayRefused } from '@openclaw-k8s/auth-sidecar/gateway-refusal.ts'
import { dialGateway, type DialOptions } from '@openclaw-k8s/auth-sidecar/tunnel/dial.ts'
import { buildUpstreamRequest } from '@openclaw-k8s/auth-sidecar/tunnel/headers.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { waitUntil } from '../kit/wait.ts'

const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
/** The example of RFC 6455 §1.3, for exactly this key. */
const ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='

/** A gateway that sends `answer` once it has read a request head, and keeps what it received. */
async function gateway(t: Test, answer: (socket: Socket) => void) {
  const requests: string[] = []
  const closed = Promise.withResolvers<void>()
  const server = createServer((socket) => {
    let text = ''
    socket.on('error', () => undefined)
    socket.on('close', () => closed.resolve())
    socket.on('data', (chunk) => {
      const isAnswered = text.includes('\r\n\r\n')
      text += chunk.toString('latin1')
      if (isAnswered || !text.includes('\r\n\r\n')) return
      requests.push(text)
      answer(socket)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  return { url: new URL(`ws://127.0.0.1:${port}/`), requests, closed: closed.promise }
}

function optionsFor(url: URL, changes: Partial<DialOptions> = {}): DialOptions {
  const { subprotocols = [] } = changes
  const request = buildUpstreamRequest({
    gatewayUrl: url,
    workerAddress: '10.0.0.5',
    workerProto: 'http',
    forwardedHost: '10.0.0.1:18443',
    subprotocols,
    identity: {
      namespace: 'openclaw',
      serviceAccount: 'openclaw-worker',
      podName: 'pod',
      podUid: 'uid',
      nodeName: undefined,
      credentialId: undefined,
      expiresAt: 0,
    },
    role: 'node',
    assertion: 'a.b.c',
    key: KEY,
  })
  return { url, request, subprotocols, timeoutMs: 5000, clock: new FakeClock(), ...changes }
}

const response = (lines: readonly string[], status = 'HTTP/1.1 101 Switching Protocols'): string =>
  [status, ...lines, '', ''].join('\r\n')

const UPGRADE = 'Upgrade: websocket'
const CONNECTION = 'Connection: Upgrade'
const ACCEPTED = `Sec-WebSocket-Accept: ${ACCEPT}`
const GOOD = [UPGRADE, CONNECTION, ACCEPTED]

test('a perfect 101 gives a paused socket and the first frames behind it', async (t) => {
  const { url, requests } = await gateway(t, (socket) => {
    socket.write(Buffer.concat([Buffer.from(response(GOOD)), Buffer.from([0x81, 2, 0x68])]))
  })
  const clock = new FakeClock()
  const options = optionsFor(url, { clock })
  const { socket, head, subprotocol } = await dialGateway(options)
  t.teardown(() => socket.destroy())
  t.same(head, Buffer.from([0x81, 2, 0x68]))
  t.equal(subprotocol, undefined)
  t.ok(socket.isPaused())
  t.ok(socket.allowHalfOpen)
  t.equal(requests[0], options.request.text)
  t.equal(clock.pending, 0)
  t.equal(socket.listenerCount('data'), 0)
  t.doesNotThrow(() => socket.emit('error', new Error('late')), 'an early error ends no process')
})

test('bytes that come after the answer wait in the socket', async (t) => {
  const { url } = await gateway(t, (socket) => {
    for (const byte of response(GOOD)) socket.write(byte)
    socket.end('frames')
  })
  const { socket, head } = await dialGateway(optionsFor(url))
  const read: Buffer[] = [head]
  socket.on('data', (chunk: Buffer) => read.push(chunk))
  socket.resume()
  await once(socket, 'end')
  t.equal(Buffer.concat(read).toString(), 'frames')
  socket.destroy()
})

test('a real WebSocket server is dialed, and answers with the subprotocol asked for', async (t) => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  t.teardown(() => server.close())
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const url = new URL(`ws://127.0.0.1:${port}`)
  const connected = once(server, 'connection')
  const { socket, subprotocol } = await dialGateway(optionsFor(url, { subprotocols: ['openclaw'] }))
  const [, request] = await connected
  t.equal(subprotocol, 'openclaw')
  t.equal(request.headers['x-forwarded-for'], '10.0.0.5')
  t.equal(request.headers['x-openclaw-scopes'], '')
  socket.destroy()
})

test('the gateway may choose any one of several subprotocols, exactly as spelled, or none', async (t) => {
  const choose = async (lines: readonly string[]) => {
    const { url, requests } = await gateway(t, (socket) =>
      socket.write(response([...GOOD, ...lines])),
    )
    const offered = ['v2', 'v1', 'base64url.bearer.authorization.k8s.io.ZXlK']
    const { socket, subprotocol } = await dialGateway(optionsFor(url, { subprotocols: offered }))
    t.match(requests[0], '\r\nSec-WebSocket-Protocol: v2, v1\r\n')
    socket.destroy()
    return subprotocol
  }
  t.equal(await choose(['Sec-WebSocket-Protocol: v2']), 'v2')
  t.equal(await choose(['Sec-WebSocket-Protocol: v1']), 'v1')
  t.equal(await choose([]), undefined)
  for (const lines of [
    ['Sec-WebSocket-Protocol: V1'],
    ['Sec-WebSocket-Protocol: v2, v1'],
    ['Sec-WebSocket-Protocol: v1', 'Sec-WebSocket-Protocol: v1'],
    ['Sec-WebSocket-Protocol: '],
    ['Sec-WebSocket-Protocol: v3'],
  ]) {
    await t.rejects(choose(lines), { code: 'gateway_refused' }, lines.join())
  }
})

test('an answer may spell names and tokens in its own case', async (t) => {
  const lines = ['UPGRADE: WebSocket', 'connection: keep-alive, UPGRADE', ACCEPTED, 'Date: today']
  const { url } = await gateway(t, (socket) => socket.write(response(lines)))
  const { socket } = await dialGateway(optionsFor(url))
  socket.destroy()
})

const OTHER_ACCEPT = createHash('sha1').update('other').digest('base64')

const REFUSED: Record<string, readonly [string, RegExp]> = {
  ...Object.fromEntries(
    [200, 302, 400, 403, 426, 500, 503].map((status) => [
      `a ${status}`,
      [
        response(['Content-Length: 6'], `HTTP/1.1 ${status} Whatever`) + 'secret',
        new RegExp(`answered ${status}(\\.| \\()`),
      ],
    ]),
  ),
  'a 101 of HTTP/1.0': [response(GOOD, 'HTTP/1.0 101 Switching Protocols'), /HTTP\/1\.1/],
  'a status of two digits': [response(GOOD, 'HTTP/1.1 10 Odd'), /HTTP\/1\.1/],
  'no HTTP at all': [response([], 'SSH-2.0-secret'), /HTTP\/1\.1/],
  'no Upgrade': [response([CONNECTION, ACCEPTED]), /does not upgrade to websocket/],
  'another Upgrade': [
    response(['Upgrade: h2c', CONNECTION, ACCEPTED]),
    /does not upgrade to websocket/,
  ],
  'two Upgrades': [response([UPGRADE, ...GOOD]), /repeats/],
  'no Connection': [response([UPGRADE, ACCEPTED]), /has no Connection: upgrade/],
  'another Connection': [
    response([UPGRADE, 'Connection: upgraded', ACCEPTED]),
    /has no Connection: upgrade/,
  ],
  'no Sec-WebSocket-Accept': [response([UPGRADE, CONNECTION]), /wrong Sec-WebSocket-Accept/],
  'the accept of another key': [
    response([UPGRADE, CONNECTION, `Sec-WebSocket-Accept: ${OTHER_ACCEPT}`]),
    /wrong Sec-WebSocket-Accept/,
  ],
  'two accepts': [response([...GOOD, ACCEPTED]), /repeats/],
  'an extension': [
    response([...GOOD, 'Sec-WebSocket-Extensions: permessage-deflate']),
    /sec-websocket-extensions/,
  ],
  'a subprotocol nobody asked for': [
    response([...GOOD, 'Sec-WebSocket-Protocol: other']),
    /subprotocol that was not offered/,
  ],
  'a Content-Length': [response([...GOOD, 'Content-Length: 0']), /content-length/],
  'a Transfer-Encoding': [response([...GOOD, 'Transfer-Encoding: chunked']), /transfer-encoding/],
  'a folded header': [response([...GOOD, 'X-A: b', ' c']), /malformed/],
  'a space before the colon': [response([...GOOD, 'X-A : b']), /malformed/],
  'a bare line feed': [response([...GOOD, 'X-A: b\nX-B: c']), /malformed/],
  'a bare carriage return': [response([...GOOD, 'X-A: b\rX-B: c']), /malformed/],
  'a header without a name': [response([...GOOD, ': b']), /malformed/],
  'an answer over 16 KiB': [response([...GOOD, `X-A: ${'a'.repeat(16_384)}`]), /16 KiB/],
  'an answer without an end': ['HTTP/1.1 101 ' + 'a'.repeat(16_384), /16 KiB/],
}

for (const [name, [answer, message]] of Object.entries(REFUSED)) {
  test(`${name} is refused, and the socket is gone`, async (t) => {
    const { url, closed } = await gateway(t, (socket) => socket.write(answer, 'latin1'))
    const error = await dialGateway(optionsFor(url)).catch((thrown: unknown) => thrown)
    if (!(error instanceof Fault)) throw new Error('no fault was thrown')
    t.equal(error.code, 'gateway_refused')
    t.match(error.message, message)
    t.notMatch(error.message, /secret|Whatever/)
    await closed
  })
}

const TYPED = { error: { type: 'proxy_attribution_required', message: 'secret' } }

const BODIES: Record<string, readonly [answer: string, refusal: string]> = {
  'a known type': [JSON.stringify(TYPED), 'proxy_attribution_required'],
  'an unknown type': ['{"error":{"type":"secret_of_9_6"}}', 'other'],
  'a type of the prototype': ['{"error":{"type":"constructor"}}', 'other'],
  'a type that is not a word': ['{"error":{"type":"secret, and more"}}', 'other'],
  'a type that is not a string': ['{"error":{"type":["rate_limited"]}}', 'other'],
  'no error': ['null', 'other'],
  'no JSON': ['<html>secret', 'other'],
  'a body that is too long': [
    JSON.stringify({ ...TYPED, padding: 'secret'.repeat(1000) }),
    'other',
  ],
}

const forbidden = (body: string, length = body.length): string =>
  response([`Content-Length: ${length}`], 'HTTP/1.1 403 Forbidden') + body

for (const [name, [body, refusal]] of Object.entries(BODIES)) {
  test(`a refusal with ${name} has a reason of the table, and none of the gateway's text`, async (t) => {
    const { url, closed } = await gateway(t, (socket) => socket.write(forbidden(body)))
    const error = await dialGateway(optionsFor(url)).catch((thrown: unknown) => thrown)
    if (!(error instanceof GatewayRefused)) throw new Error('no refusal was thrown')
    t.equal(error.refusal, refusal)
    t.notMatch(error.message, /secret,|<html>/)
    await closed
  })
}

const CHUNKS: Record<string, readonly [body: string, refusal: string]> = {
  'in one chunk': [chunksOf(JSON.stringify(TYPED), 4000), 'proxy_attribution_required'],
  'in many chunks': [chunksOf(JSON.stringify(TYPED), 7), 'proxy_attribution_required'],
  'with an extension': [
    chunksOf(JSON.stringify(TYPED), 4000).replace('\r\n', ' ;name="value"\r\n'),
    'proxy_attribution_required',
  ],
  'with a size that is not a number': [`x${chunksOf(JSON.stringify(TYPED), 4000)}`, 'other'],
  'with a size beyond the body': [`ffffffff\r\n{"secret":"${'x'.repeat(5000)}`, 'other'],
  'without a size': ['x'.repeat(5000), 'other'],
  'with nothing in them': ['0\r\n\r\n', 'other'],
}

function chunksOf(body: string, length: number): string {
  const parts = body.match(new RegExp(`.{1,${length}}`, 'gu')) ?? []
  return `${parts.map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join('')}0\r\n\r\n`
}

for (const [name, [body, refusal]] of Object.entries(CHUNKS)) {
  test(`the reason of a refusal is read ${name}, though the connection stays open`, async (t) => {
    const head = response(['Transfer-Encoding: gzip, Chunked'], 'HTTP/1.1 403 Forbidden')
    const bytes = head + body
    const { url, closed } = await gateway(t, (socket) => {
      const cut = head.length + 10
      socket.write(bytes.slice(0, cut), 'latin1', () => socket.write(bytes.slice(cut)))
    })
    const clock = new FakeClock()
    const error = await dialGateway(optionsFor(url, { clock })).catch((thrown: unknown) => thrown)
    t.match(error, { code: 'gateway_refused', refusal })
    t.equal(clock.pending, 0, 'without a wait')
    t.notMatch((error as Error).message, /secret/)
    await closed
  })
}

test('the reason of a refusal may come in pieces, and end with the connection', async (t) => {
  const [first, second] = [JSON.stringify(TYPED).slice(0, 20), JSON.stringify(TYPED).slice(20)]
  const { url } = await gateway(t, (socket) => {
    socket.write(forbidden(first, 4000), 'latin1', () => socket.end(second))
  })
  const error = await dialGateway(optionsFor(url)).catch((thrown: unknown) => thrown)
  t.match(error, { refusal: 'proxy_attribution_required' })
})

test('a refusal whose body does not come is a refusal without a reason', async (t) => {
  const clock = new FakeClock()
  const { url, closed } = await gateway(t, (socket) => socket.write(forbidden('', 100)))
  const dialing = dialGateway(optionsFor(url, { clock })).catch((thrown: unknown) => thrown)
  // The deadline of the dial, then that of the body, too.
  await waitUntil(() => clock.pending === 2)
  clock.advance(500)
  t.match(await dialing, { code: 'gateway_refused', refusal: 'other' })
  await closed
  t.equal(clock.pending, 0)
})

test('a gateway that answers in TLS is named', async (t) => {
  // An alert: unexpected message.
  const alert = Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x0a])
  const { url, closed } = await gateway(t, (socket) => socket.write(alert))
  t.match(await dialGateway(optionsFor(url)).catch((thrown: unknown) => thrown), {
    code: 'gateway_refused',
    refusal: 'tls',
  })
  await closed
})

test('a sidecar without file descriptors does not blame the gateway', async (t) => {
  const connect = () => {
    const socket = new Socket()
    process.nextTick(() =>
      socket.destroy(Object.assign(new Error('connect EMFILE'), { code: 'EMFILE' })),
    )
    return socket
  }
  const dialing = dialGateway(optionsFor(new URL('ws://127.0.0.1:1/'), { connect }))
  await t.rejects(dialing, {
    code: 'gateway_unreachable',
    message: /the sidecar has no file descriptor left/,
  })
})

test('a gateway that listens nowhere is unreachable', async (t) => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  const dialing = dialGateway(optionsFor(new URL(`ws://127.0.0.1:${port}/`)))
  await t.rejects(dialing, { name: 'Fault', code: 'gateway_unreachable' })
})

test('a gateway that hangs up without an answer is unreachable', async (t) => {
  for (const hangUp of [
    (socket: Socket) => socket.end(),
    (socket: Socket) => socket.end('HTTP/1.1 101 Swi'),
    (socket: Socket) => socket.resetAndDestroy(),
  ]) {
    const { url } = await gateway(t, hangUp)
    await t.rejects(dialGateway(optionsFor(url)), { name: 'Fault', code: 'gateway_unreachable' })
  }
})

test('the deadline covers the answer, even one under way', async (t) => {
  const clock = new FakeClock()
  const { url, closed } = await gateway(t, (socket) => {
    socket.write('HTTP/1.1 101 Swi', () => clock.advance(5000))
  })
  const dialing = dialGateway(optionsFor(url, { clock }))
  await t.rejects(dialing, { name: 'Fault', code: 'gateway_unreachable' })
  await closed
  t.equal(clock.pending, 0)
})

test('an abort drops the socket and rejects with its reason', async (t) => {
  const controller = new AbortController()
  const reason = new Error('revoked')
  const { url, closed } = await gateway(t, () => controller.abort(reason))
  const clock = new FakeClock()
  const { signal } = controller
  const dialing = dialGateway(optionsFor(url, { clock, signal }))
  await t.rejects(dialing, reason)
  await closed
  t.equal(clock.pending, 0)
})

test('an aborted signal dials nobody', async (t) => {
  const { url, requests } = await gateway(t, () => undefined)
  const reason = new Error('revoked')
  const signal = AbortSignal.abort(reason)
  const connect = (): never => t.fail('connected') as never
  await t.rejects(dialGateway(optionsFor(url, { signal, connect })), reason)
  await turn()
  t.equal(requests.length, 0)
})

test('TLS is not pretended', async (t) => {
  const url = new URL('wss://127.0.0.1:1/')
  await t.rejects(dialGateway(optionsFor(url)), /must use ws:/)
})

test('the socket is reported before it connects, when it has an error listener', async (t) => {
  const { url } = await gateway(t, () => {})
  const seen: Socket[] = []
  const dial = dialGateway(
    optionsFor(url, {
      timeoutMs: 1,
      clock: new FakeClock(),
      watchPeer: (each) => void seen.push(each),
    }),
  )
  t.equal(seen.length, 1)
  t.equal(seen[0]?.connecting, true)
  t.equal(seen[0]?.listenerCount('error'), 2, 'of the dial, and for good')
  seen[0]?.destroy()
  await t.rejects(dial)
  t.equal(seen[0]?.listenerCount('error'), 1, 'for good')
})
