/** The operator channel: up whenever the gateway is, and never waited for without end. */

import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { test, type Test } from 'tap'
import { WebSocketServer, type WebSocket } from 'ws'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import {
  CallRefused,
  OperatorChannel,
  type OperatorChannelOptions,
} from '@openclaw-k8s/auth-sidecar/dialect/openclaw/operator-channel.ts'
import { startGatewayStub, type GatewayStubOptions } from '@openclaw-k8s/gateway-stub'
import { FakeClock } from '../kit/fake-clock.ts'

const start = async (
  gatewayOptions: GatewayStubOptions = {},
  options: Partial<OperatorChannelOptions> = {},
) => {
  const clock = new FakeClock()
  const gateway = await startGatewayStub({
    mode: 'openclaw',
    token: 'secret',
    methods: {
      echo: (params) => params,
      fail: () => {
        throw new Error('not today')
      },
    },
    ...gatewayOptions,
  })
  const told: string[] = []
  const waiters: { readonly word: string; readonly resolve: () => void }[] = []
  const tell = (word: string) => {
    told.push(word)
    for (const waiter of waiters.splice(0)) {
      if (word.startsWith(waiter.word)) waiter.resolve()
      else waiters.push(waiter)
    }
  }
  const channel = new OperatorChannel({
    url: new URL(gateway.url),
    readAuth: () => ({ token: 'secret' }),
    version: '1.2.3',
    clock,
    random() {
      tell('backoff')
      return 1
    },
    messageBytesMax: 1_048_576,
    onReady: () => tell('ready'),
    onDown: ({ message }) => tell(`down ${message}`),
    onRefused: (refusal) => tell(`refused ${refusal}`),
    onEvent: ({ event }) => tell(`event ${event}`),
    ...options,
  })
  const until = (word: string) => {
    const { promise, resolve } = Promise.withResolvers<void>()
    waiters.push({ word, resolve })
    return promise
  }
  return {
    clock,
    gateway,
    channel,
    told,
    /** Resolves when this is reported next. */
    until,
    stop: async () => {
      channel.stop()
      await gateway.close()
    },
  }
}

test('a call is sent once, whether it waited for the channel or was made when it came up', async (t) => {
  const asked: unknown[] = []
  const early: Promise<unknown>[] = []
  const rig = await start(
    { methods: { echo: (params) => asked.push(params) } },
    { onReady: () => void early.push(rig.channel.call('echo', { when: 'ready' })) },
  )
  t.teardown(rig.stop)
  rig.channel.start()
  await rig.channel.call('echo', { when: 'waiting' })
  await Promise.all(early)
  await rig.channel.call('echo', { when: 'later' })
  t.match(asked, [{ when: 'ready' }, { when: 'waiting' }, { when: 'later' }])
  t.equal(asked.length, 3)
})

test('it connects as a clean local backend, and its calls are answered', async (t) => {
  const { channel, gateway, until, stop } = await start()
  t.teardown(stop)
  const ready = until('ready')
  channel.start()
  const early = channel.call('echo', { early: true })
  await ready
  t.ok(channel.isReady)
  t.strictSame(await early, { early: true }, 'a call from before is made when it is up')
  t.strictSame(await channel.call('echo', { n: 1 }), { n: 1 })
  const [handshake] = gateway.handshakes
  t.equal(handshake?.headers.origin, undefined)
  t.notMatch(Object.keys(handshake?.headers ?? {}), [/forward/])
  const connect = JSON.parse(String(gateway.received[0]?.data)) as { readonly params: object }
  t.match(connect.params, {
    client: { id: 'gateway-client', mode: 'backend' },
    role: 'operator',
    scopes: ['operator.admin'],
    auth: { token: 'secret' },
  })
})

test('a refusal by the gateway is not a fault, and does not end the channel', async (t) => {
  const { channel, until, stop } = await start()
  t.teardown(stop)
  const ready = until('ready')
  channel.start()
  await ready
  await t.rejects(channel.call('fail'), new CallRefused('fail', 'INVALID_REQUEST', 'not today'))
  t.strictSame(await channel.call('echo', {}), {})
})

test('it reconnects after a restart of the gateway, with the current secret', async (t) => {
  let secret = 'secret'
  const { channel, clock, gateway, until, stop } = await start(
    {},
    { readAuth: () => ({ token: secret }) },
  )
  t.teardown(stop)
  let told = until('ready')
  channel.start()
  await told
  const port = gateway.port
  told = until('down')
  await gateway.close()
  await told
  t.notOk(channel.isReady)
  secret = 'rotated'
  const next = await startGatewayStub({ mode: 'openclaw', token: 'rotated', port })
  t.teardown(() => next.close())
  told = until('ready')
  clock.advance(100)
  await told
  t.ok(channel.isReady)
})

test('it retries less and less often, and logs the same reason once', async (t) => {
  const { channel, clock, told, until, stop, gateway } = await start(
    {},
    { readAuth: () => ({ token: 'wrong' }) },
  )
  t.teardown(stop)
  let next = until('backoff')
  channel.start()
  await next
  let dials = 1
  for (const waitMs of [100, 200, 400, 800, 1600, 2000, 2000]) {
    clock.advance(waitMs - 1)
    t.equal(gateway.handshakes.length, dials)
    dials += 1
    next = until('backoff')
    clock.advance(1)
    await next
    t.equal(gateway.handshakes.length, dials, `after ${waitMs} ms`)
  }
  t.equal(told.filter((word) => word.startsWith('down')).length, 1)
})

test('a secret that cannot be read is logged, and read again later', async (t) => {
  let isThere = false
  const { channel, clock, told, until, stop } = await start(
    {},
    {
      readAuth() {
        if (!isThere) throw new Error('ENOENT')
        return { token: 'secret' }
      },
    },
  )
  t.teardown(stop)
  channel.start()
  t.match(told[0], /secret cannot be read/)
  isThere = true
  const ready = until('ready')
  clock.advance(100)
  await ready
})

test('no call waits longer than its deadline, and not too many wait at once', async (t) => {
  const { channel, clock, stop } = await start({ behavior: 'stall' })
  t.teardown(stop)
  channel.start()
  const calls = Array.from({ length: 1025 }, () =>
    channel.call('echo').then(
      () => 'answered',
      (error: unknown) => (error instanceof Fault ? error.message : 'other'),
    ),
  )
  t.match(await calls.at(-1), /too many calls/)
  clock.advance(5000)
  t.match(await calls[0], /not answered within 5000 ms/)
  t.match(await calls[1023], /not answered within 5000 ms/)
})

test('what was under way when the channel broke fails at once', async (t) => {
  const { channel, gateway, until, stop } = await start({
    methods: { leave: (_, connection) => connection.terminate() },
  })
  t.teardown(stop)
  const ready = until('ready')
  channel.start()
  await ready
  await t.rejects(channel.call('leave'), { code: 'operator_unavailable' })
  t.equal(gateway.handshakes.length, 1)
})

test('the channel leaves a silent gateway', async (t) => {
  const { channel, clock, gateway, until, stop } = await start()
  t.teardown(stop)
  const ready = until('ready')
  channel.start()
  await ready
  const [connection] = gateway.connections
  const ticked = until('event tick')
  clock.advance(74_999)
  gateway.tick()
  await ticked
  clock.advance(74_999)
  t.ok(channel.isReady, 'a tick is a sign of life')
  clock.advance(1)
  t.notOk(channel.isReady)
  t.equal((await connection?.closed)?.code, 1006)
})

test('a gateway that never says hello is left after the handshake limit', async (t) => {
  const { channel, clock, told, until, stop } = await start({ behavior: 'mute' })
  t.teardown(stop)
  const down = until('down')
  channel.start()
  clock.advance(5000)
  await down
  t.match(told[0], /did not upgrade the connection within 5000 ms/)
})

/** A gateway that holds back its answer to `connect`. */
const startLate = async (t: Test) => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  t.teardown(() => server.close())
  server.on('connection', (socket: WebSocket) => {
    const payload = { nonce: 'a-nonce', ts: 1 }
    socket.send(JSON.stringify({ type: 'event', event: 'connect.challenge', payload }))
  })
  const { port } = server.address() as AddressInfo
  const { channel, clock, told, until, stop } = await start(
    {},
    { url: new URL(`ws://127.0.0.1:${port}`) },
  )
  t.teardown(stop)
  const connected = once(server, 'connection')
  channel.start()
  const [socket] = (await connected) as [WebSocket]
  await once(socket, 'message')
  return { socket, clock, told, until }
}

test('a secret is known to be refused also when the gateway takes its time to say so', async (t) => {
  const { socket, clock, told, until } = await startLate(t)
  clock.advance(14_999)
  const refused = until('refused')
  const error = { code: 'INVALID_REQUEST', details: { code: 'AUTH_TOKEN_MISMATCH' } }
  socket.send(JSON.stringify({ type: 'res', id: 'operator', ok: false, error }))
  await refused
  t.equal(told[0], 'refused AUTH_TOKEN_MISMATCH')
})

test('a gateway that never answers the connect is left after fifteen seconds', async (t) => {
  const { clock, until, told } = await startLate(t)
  clock.advance(14_999)
  t.same(told, [])
  const down = until('down')
  clock.advance(1)
  await down
  t.match(told[0], /no hello within 15000 ms/)
})
