/** The handshake with the gateway, against gateways that say what they should not. */

import { connect, createServer, type Socket } from 'node:net'
import { once } from 'node:events'
import { test } from 'tap'
import { greetGateway } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-handshake.ts'
import { closeFrame, pingFrame, textFrame } from '@openclaw-k8s/auth-sidecar/websocket/frames.ts'

const CHALLENGE = {
  type: 'event',
  event: 'connect.challenge',
  payload: { nonce: 'n', ts: 1, capabilities: [] },
}
const AUTH = { method: 'token', role: 'node', scopes: [] }
const helloWith = (auth: object) => ({
  type: 'res',
  id: 'r1',
  ok: true,
  payload: { type: 'hello-ok', protocol: 4, server: { connId: 'c' }, auth },
})
const frame = (message: object): Buffer => textFrame(JSON.stringify(message), { masked: false })
const UNMASKED = { masked: false }

/** A gateway that says `first`, and `then` once something came. */
const greet = async (first: readonly Buffer[], then: readonly Buffer[] = []) => {
  const said: Buffer[] = []
  const server = createServer((socket: Socket) => {
    socket.on('error', () => {})
    for (const bytes of first) socket.write(bytes)
    socket.on('data', (bytes: Buffer) => {
      said.push(bytes)
      if (said.length === 1) for (const next of then) socket.write(next)
    })
    socket.on('end', () => socket.end())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { readonly port: number }
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  await once(socket, 'connect')
  const outcome = await greetGateway({
    dialed: { socket, head: Buffer.alloc(0), subprotocol: undefined },
    requestId: 'r1',
    connectFrame: ({ nonce, ts }) => JSON.stringify({ answered: nonce, ts }),
    messageBytesMax: 4096,
  }).then(
    (welcome) => ({ hello: welcome.hello, head: welcome.gateway.head, socket }),
    (error: unknown) => String(error),
  )
  const isPaused = socket.isPaused()
  socket.destroy()
  server.close()
  return { outcome, isPaused, said: Buffer.concat(said) }
}

test('the connect answers the challenge, and what follows the hello is kept for the stream', async (t) => {
  const behind = frame({ type: 'event', event: 'tick' })
  const hello = frame(helloWith({ ...AUTH, deviceToken: 'secret', issuedAtMs: 1, other: 'x' }))
  const { outcome, isPaused, said } = await greet(
    [pingFrame(UNMASKED), frame(CHALLENGE)],
    [Buffer.concat([hello, behind])],
  )
  if (typeof outcome === 'string') throw new Error(outcome)
  t.match(JSON.parse(outcome.hello), helloWith(AUTH))
  t.notMatch(outcome.hello, /secret|issuedAtMs|other/)
  t.strictSame(outcome.head, behind)
  t.ok(isPaused, 'nothing of it is lost before the stream begins')
  t.equal(said[0], 0x8a, 'the ping was answered')
})

test('a challenge split to the byte is read all the same', async (t) => {
  const bytes = frame(CHALLENGE)
  const parts = Array.from(bytes, (_, at) => bytes.subarray(at, at + 1))
  const { outcome } = await greet(parts, [frame(helloWith(AUTH))])
  t.match(outcome, { hello: /hello-ok/ })
})

test('a hello with more rights than a node has is not passed on', async (t) => {
  for (const auth of [
    { ...AUTH, role: 'operator' },
    { ...AUTH, scopes: ['operator.read'] },
    { role: 'node' },
  ]) {
    const { outcome } = await greet([frame(CHALLENGE)], [frame(helloWith(auth))])
    t.match(outcome, /hello is not for a node/, JSON.stringify(auth))
  }
})

test('a gateway that does not finish the handshake is given up', async (t) => {
  const noise = Array.from({ length: 17 }, () => frame({ type: 'event', event: 'noise' }))
  t.match((await greet(noise)).outcome, /sent an unexpected message during the handshake/)
  const few = noise.slice(0, 16)
  t.match((await greet([...few, frame(CHALLENGE)], [frame(helloWith(AUTH))])).outcome, {
    hello: /hello-ok/,
  })
  const close = closeFrame({ code: 1012, reason: '', masked: false })
  t.match((await greet([close])).outcome, /closed the stream during the handshake/)
  const large = textFrame('x'.repeat(5000), UNMASKED)
  t.match((await greet([large])).outcome, /violated the handshake: frame_too_large/)
  t.match((await greet([frame(CHALLENGE)], [large])).outcome, /frame_too_large/)
  const masked = textFrame('{}', { masked: true })
  t.match((await greet([masked])).outcome, /violated the handshake: framing_violation/)
})

test('a refusal keeps its reason for the log, and the answer to another request is ignored', async (t) => {
  const error = { code: 'NOT_PAIRED', message: 'm', details: { code: 'PAIRING_REQUIRED' } }
  const no = { type: 'res', id: 'r1', ok: false, error }
  const { outcome } = await greet(
    [frame(CHALLENGE)],
    [frame({ ...helloWith(AUTH), id: 'r0' }), frame(no)],
  )
  t.match(outcome, /refused the connect \(PAIRING_REQUIRED\)/)
})
