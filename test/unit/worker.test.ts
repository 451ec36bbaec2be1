/** A worker at the door is forgotten with its release: what it showed does not live as long as its stream. */

import { Buffer } from 'node:buffer'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { inspect } from 'node:util'
import { test, type Test } from 'tap'
import { granted } from '@openclaw-k8s/auth-sidecar/denial.ts'
import type { WorkerSide } from '@openclaw-k8s/auth-sidecar/dialect/dialect.ts'
import { createOpenClawDialect } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/openclaw.ts'
import { Sessions } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/sessions.ts'
import { createStreamDialect } from '@openclaw-k8s/auth-sidecar/dialect/stream.ts'
import type { Identity } from '@openclaw-k8s/auth-sidecar/identity.ts'
import { Worker } from '@openclaw-k8s/auth-sidecar/edge/worker.ts'
import { Places } from '@openclaw-k8s/auth-sidecar/places.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { connectFrame, createDevice } from '../openclaw/light-node.ts'

const TOKEN = 'a-token-nobody-may-keep'

const socketFor = async (t: Test): Promise<Socket> => {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  await once(socket, 'connect')
  t.teardown(() => {
    socket.destroy()
    server.close()
  })
  return socket
}

const workerOf = (socket: Socket, head: Buffer): Worker =>
  new Worker({
    socket,
    head,
    address: '127.0.0.11',
    upgrade: {
      key: 'dGhlIHNhbXBsZSBub25jZQ==',
      host: 'gateway',
      subprotocol: undefined,
      role: 'node',
      hasOrigin: false,
      userAgent: undefined,
      traceparent: undefined,
      path: '/',
    },
    credential: { token: TOKEN, carrier: 'authorization' },
    clock: new FakeClock(),
    random: () => 0,
    preAuthFrameBytesMax: 65_536,
  })

const holdsToken = (value: unknown): boolean =>
  inspect(value, { depth: Infinity, showHidden: true, maxArrayLength: null }).includes(TOKEN)

test('no token is left in a worker that was released', async (t) => {
  const request = Buffer.from(`GET / HTTP/1.1\r\nAuthorization: Bearer ${TOKEN}\r\n\r\nframe`)
  const worker = workerOf(await socketFor(t), request.subarray(request.indexOf('frame')))
  t.equal(worker.token, TOKEN)
  t.equal(worker.head.toString(), 'frame')
  t.notOk(Buffer.from(worker.head.buffer).includes(TOKEN), 'nor behind the first bytes of a stream')
  worker.release()
  t.equal(worker.token, undefined)
  t.notOk(holdsToken(worker))
})

test('a dialect asks the worker for its token and keeps none of its own', async (t) => {
  const worker = workerOf(await socketFor(t), Buffer.alloc(0))
  const handshake = createStreamDialect({
    inBandCredentials: true,
    dial: () => Promise.reject(new Error('nobody dials here')),
    places: new Places(1),
  })(worker)
  t.strictSame(await handshake.introduce(), granted({ token: TOKEN, role: 'node' }))
  worker.release()
  t.strictSame(await handshake.introduce(), { ok: false, code: 'credential_missing' })
})

test('a node that was let in leaves neither its connect nor the hello of the gateway behind', async (t) => {
  const clock = new FakeClock()
  const socket = await socketFor(t)
  const sent: string[] = []
  const worker: WorkerSide = {
    address: '127.0.0.11',
    host: 'gateway',
    userAgent: undefined,
    traceparent: undefined,
    subprotocol: undefined,
    token: TOKEN,
    hasOrigin: false,
    role: undefined,
    open() {},
    send: (text) => void sent.push(text),
    nextMessage: async () => {
      const { payload } = JSON.parse(sent[0] ?? '') as { payload: { nonce: string; ts: number } }
      const device = createDevice()
      const frame = connectFrame(payload.nonce, payload.ts, { device, auth: { token: TOKEN } })
      return granted(JSON.stringify(frame))
    },
  }
  const dialect = createOpenClawDialect({
    inBandCredentials: true,
    isLocalAddress: () => false,
    deviceKeys: () => ({ id: 'device', publicKey: '', sign: () => '' }),
    sessions: new Sessions(),
    enrolment: {
      enter: async () => ({
        hello: 'the hello',
        gateway: { socket, head: Buffer.alloc(0), subprotocol: undefined },
      }),
    },
    clock,
    randomId: () => 'nonce',
  })
  const handshake = dialect(worker)
  t.ok((await handshake.introduce()).ok)
  t.type(handshake.refusalMessage('pod_deleted'), 'string')
  const gateway = await handshake.reach({
    identity: { podUid: 'uid' } as Identity,
    role: 'node',
    allowedCommands: [],
    signal: new AbortController().signal,
    revoke() {},
  })
  handshake.release(gateway)
  t.equal(sent.at(-1), 'the hello')
  t.equal(handshake.refusalMessage('pod_deleted'), undefined, 'there is no request left to answer')
})
