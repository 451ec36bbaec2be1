/** The bodies of session hosting: large ones, both ways, byte for byte and with backpressure. */

import { createHash, hash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'tap'
import {
  answer,
  BUNDLE,
  GATEWAY_TOKEN,
  getLines,
  POD_ADDRESS,
  postHead,
  RECONCILIATION,
  startHostingRig,
  type HostingRigOptions,
} from '../kit/hosting-rig.ts'
import { waitUntil } from '../kit/wait.ts'

type Teardown = { readonly teardown: (stop: () => unknown) => unknown }

const MIB = 1024 ** 2
/** What Node's streams and the kernel's socket buffers may hold of a body that nobody reads. */
const HELD_MAX = 24 * MIB

const hostFor = async (t: Teardown, options: HostingRigOptions = {}) => {
  const rig = await startHostingRig(options)
  t.teardown(rig.stop)
  await rig.startNode()
  return rig
}

/** As a node does it: Node's own client. */
const send = async (port: number, path: string, body?: Buffer) => {
  const request = httpRequest({
    port,
    path,
    method: body === undefined ? 'GET' : 'POST',
    localAddress: POD_ADDRESS,
    headers: {
      Authorization: `Bearer ${GATEWAY_TOKEN}`,
      ...(body === undefined ? {} : { 'Content-Length': body.length }),
    },
  })
  request.end(body)
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  return response
}

test('30 MiB pass up and down byte for byte', async (t) => {
  const big = randomBytes(30 * MIB)
  const sha256 = hash('sha256', big)
  const rig = await hostFor(t, {
    serve: ({ method, body }, response) => {
      if (method === 'GET') return answer(response, 200, big)
      return void body.then((read) => answer(response, 200, read.sha256))
    },
  })
  const down = await send(rig.port, BUNDLE)
  const digest = createHash('sha256')
  for await (const chunk of down) digest.update(chunk as Buffer)
  t.equal(digest.digest('hex'), sha256)
  t.equal(down.complete, true)
  const up = await send(rig.port, RECONCILIATION, big)
  t.equal((await up.toArray()).join(''), sha256)
  await waitUntil(() => rig.audit.filter(({ code }) => code === 'completed').length === 2)
  const [first, second] = rig.audit.filter(({ code }) => code === 'completed')
  t.match(first, { route: 'bundle', bytesDown: 30 * MIB, bytesUp: 0 })
  t.match(second, { route: 'reconciliation', bytesUp: 30 * MIB, bytesDown: 64 })
})

test('a side that does not read holds the other back, and gets everything when it reads', async (t) => {
  const big = randomBytes(64 * MIB)
  let sent = 0
  let read = () => {}
  const rig = await hostFor(t, {
    serve: ({ method, request }, response) => {
      if (method === 'GET') {
        response.writeHead(200, { 'Content-Length': big.length })
        const push = () => {
          for (let isRoom = true; isRoom && sent < big.length; sent += MIB) {
            isRoom = response.write(big.subarray(sent, sent + MIB))
          }
          if (sent < big.length) response.once('drain', push)
          else response.end()
        }
        return push()
      }
      request.pause()
      read = () => void request.resume().once('end', () => answer(response, 200, '{}'))
    },
  })
  const down = await send(rig.port, BUNDLE)
  down.pause()
  await quiet(() => sent)
  t.ok(sent < HELD_MAX, `the gateway could send ${sent} bytes`)
  const digest = createHash('sha256')
  for await (const chunk of down) digest.update(chunk as Buffer)
  t.equal(digest.digest('hex'), hash('sha256', big))

  const up = await rig.open()
  up.write(postHead(big.length))
  up.write(big)
  await waitUntil(() => rig.served.length === 2)
  rig.served[1]?.request.pause()
  await quiet(() => up.bytesWritten - up.writableLength)
  t.ok(up.writableLength > big.length - HELD_MAX, `${up.writableLength} bytes wait at the worker`)
  read()
  const [chunk] = (await once(up, 'data')) as [Buffer]
  t.match(chunk.toString(), /^HTTP\/1\.1 200 /)
  up.destroy()
  t.equal((await rig.served[1]?.body)?.sha256, hash('sha256', big))
})

/** Waits until a number has not changed for many turns. */
const quiet = async (count: () => number): Promise<void> => {
  for (let still = 0, last = -1; still < 300; still = last === count() ? still + 1 : 0) {
    last = count()
    await turn()
  }
}

test('a gateway that refuses a body early is heard when the body is read', async (t) => {
  for (const isCut of [false, true]) {
    const rig = await hostFor(t, {
      serve: ({ request }, response) => {
        request.removeAllListeners('data')
        answer(response, 404, '{"error":"not_found"}')
        if (isCut) response.once('finish', () => request.socket.destroySoon())
      },
    })
    const socket = await rig.open()
    let text = ''
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
    const body = 'a'.repeat(5 * MIB)
    socket.write(`${postHead(body.length)}${body.slice(1)}`)
    await waitUntil(() => rig.served.length === 1)
    await quiet(() => socket.bytesWritten)
    t.equal(text, '')
    const ended = once(socket, 'end')
    socket.write('a')
    await ended
    t.match(text, isCut ? /^HTTP\/1\.1 (404|502) / : /^HTTP\/1\.1 404 .*not_found/s)
    socket.destroy()
  }
})

test('an early answer that broke off before the body was read is a refusal, not a silence', async (t) => {
  const rig = await hostFor(t, {
    serve({ request }) {
      request.socket.write('HTTP/1.1 413 Payload Too Large\r\nContent-Length: 100\r\n\r\nabc')
      request.socket.destroySoon()
    },
  })
  const socket = await rig.open()
  let text = ''
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
  socket.write(`${postHead(3)}ab`)
  await waitUntil(() => rig.served.length === 1)
  await rig.served[0]?.body
  await quiet(() => socket.bytesWritten)
  t.equal(text, '')
  const ended = once(socket, 'end')
  socket.write('c')
  await ended
  t.match(text, /^HTTP\/1\.1 502 .*gateway_gone/s)
  socket.destroy()
})

test('many transfers of a pod, one after another, cost it nothing', async (t) => {
  const rig = await hostFor(t, { set: ['limits.failuresPerAddress=1/s'] })
  for (let n = 0; n < 100; n += 1) t.equal((await rig.get()).status, 200)
})

test('transfers that the gateway refuses are charged to their pod', async (t) => {
  const rig = await hostFor(t, {
    set: ['limits.failuresPerAddress=1/s'],
    serve: (_, response) => answer(response, 404, '{"error":"not_found"}'),
  })
  const codes: (string | undefined)[] = []
  for (let n = 0; n < 8; n += 1) codes.push((await rig.get()).code)
  t.equal(codes.at(-1), 'rate_limited')
})

test('the first bytes of a body that came with its head are passed on once', async (t) => {
  const rig = await hostFor(t)
  const { status } = await rig.post('hello')
  t.equal(status, 200)
  t.equal((await rig.served[0]?.body)?.sha256, hash('sha256', 'hello'))
  t.equal((await rig.get(BUNDLE)).status, 200)
  t.equal((await rig.ask(getLines(BUNDLE))).headers['connection'], 'close')
})
