/** Session hosting under hostile requests: every odd form is refused before the gateway sees a byte. */

import { hash } from 'node:crypto'
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { test } from 'tap'
import {
  answer,
  BUNDLE,
  ENVIRONMENT,
  GATEWAY_TOKEN,
  getLines,
  HASH,
  postHead,
  RECONCILIATION,
  startHostingRig,
  WORKER,
  type HostingRig,
  type HostingRigOptions,
} from '../kit/hosting-rig.ts'
import { upgradeLines } from '../kit/raw-upgrade.ts'
import { waitUntil } from '../kit/wait.ts'

type Teardown = { readonly teardown: (stop: () => unknown) => unknown }

/** A rig with a node that hosts sessions. */
const hostFor = async (t: Teardown, options: HostingRigOptions = {}) => {
  const rig = await startHostingRig({
    ...options,
    // Each refusal is charged to the pod.
    set: ['limits.failuresPerAddress=0', ...(options.set ?? [])],
  })
  t.teardown(rig.stop)
  const node = await rig.startNode()
  return { ...rig, node }
}

const untouched = ({ served, hosted }: HostingRig): boolean => served.length + hosted().length === 0

const TOKEN = `Authorization: Bearer ${GATEWAY_TOKEN}`

test('a request of another form than its route’s is refused', async (t) => {
  const rig = await hostFor(t)
  const get = (...extra: readonly string[]) => getLines(BUNDLE, extra)
  const post = (...extra: readonly string[]) => [
    `POST ${RECONCILIATION} HTTP/1.1`,
    'Host: a',
    TOKEN,
    ...extra,
  ]
  const malformed: readonly (readonly string[])[] = [
    get('Transfer-Encoding: chunked'),
    get('Content-Length: 0'),
    get('Content-Length: 5'),
    get('Expect: 100-continue'),
    get('Trailer: X'),
    get('TE: trailers'),
    get('Upgrade: h2c'),
    get('Host: b'),
    get(TOKEN),
    get('Accept-Encoding: gzip', 'Accept-Encoding: br'),
    post(),
    post('Transfer-Encoding: chunked'),
    post('Content-Length: 0', 'Expect: 100-continue'),
    post('Content-Length: 0', 'Content-Type: a', 'Content-Type: b'),
    [`GET ${BUNDLE} HTTP/1.0`, 'Host: a', TOKEN],
    [`GET ${BUNDLE} HTTP/1.1`, 'Host: a', 'Authorization: Basic YTpi'],
    [`GET ${BUNDLE} HTTP/1.1`, 'Host: a', 'Authorization: Bearer'],
    [`GET ${BUNDLE} HTTP/1.1`, 'Host: a', 'Authorization: Bearer a b'],
    upgradeLines(BUNDLE, [TOKEN]),
    upgradeLines(WORKER, [TOKEN, TOKEN]),
    upgradeLines(WORKER, ['Expect: 100-continue']),
  ]
  for (const lines of malformed) {
    const { status, code } = await rig.ask(lines)
    t.strictSame([status, code], [400, 'session_hosting_malformed'], lines.join(' | '))
  }
  t.ok(untouched(rig))
})

test('what Node’s own parser refuses is refused here, too', async (t) => {
  const rig = await hostFor(t)
  const post = (...extra: readonly string[]) => [
    `POST ${RECONCILIATION} HTTP/1.1`,
    'Host: a',
    ...extra,
  ]
  for (const lines of [
    post('Content-Length: 3', 'Content-Length: 3'),
    post('Content-Length: 3', 'Transfer-Encoding: chunked'),
    post('Content-Length: 3, 3'),
    post('Content-Length: -1'),
    post('Content-Length: +3'),
    post('Content-Length : 3'),
  ]) {
    t.equal((await rig.ask(lines)).status, 400, lines.join(' | '))
  }
  t.ok(untouched(rig))
})

test('a target that differs from a listed one in anything is not session hosting', async (t) => {
  const rig = await hostFor(t)
  for (const path of [
    `${BUNDLE}?a=b`,
    `${BUNDLE}/`,
    `/.${BUNDLE}`,
    `/${BUNDLE}`,
    `http://gateway${BUNDLE}`,
    BUNDLE.replace('worker-bundle', 'worker%2Dbundle'),
    `${ENVIRONMENT.replace('%3A', ':')}/blobs/${HASH}`,
    `${ENVIRONMENT.replace('%3A', '%2F')}/blobs/${HASH}`,
    `${ENVIRONMENT}/snapshots/../blobs/${HASH}`,
    `/__openclaw__/worker-bootstrap/artifacts/${HASH}`,
    WORKER,
    '/tools/invoke',
  ]) {
    const { status } = await rig.get(path)
    t.ok([400, 426].includes(status), `${path}: ${status}`)
  }
  for (const method of ['POST', 'PUT', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE']) {
    const { status } = await rig.ask([`${method} ${BUNDLE} HTTP/1.1`, 'Host: a', TOKEN])
    t.equal(status, 405, method)
  }
  t.equal((await rig.ask([`GET ${RECONCILIATION} HTTP/1.1`, 'Host: a', TOKEN])).status, 426)
  t.ok(untouched(rig))
})

test('a browser is refused, from whatever address', async (t) => {
  const rig = await hostFor(t)
  const origin = 'Origin: http://localhost'
  for (const asked of [rig.get(BUNDLE, [origin]), rig.post('x', [origin]), rig.upgrade([origin])]) {
    t.equal((await asked).code, 'origin_not_allowed')
  }
  t.ok(untouched(rig))
})

test('a body of more than 4 GiB is refused by its length', async (t) => {
  const rig = await hostFor(t)
  const socket = await rig.open()
  socket.write(postHead(4 * 1024 ** 3 + 1))
  const [chunk] = (await once(socket, 'data')) as [Buffer]
  t.match(chunk.toString(), /^HTTP\/1\.1 413 .*transfer_too_large/s)
  socket.destroy()
  t.ok(untouched(rig))
})

test('a stranger’s body is not read: the refusal comes at once, and the connection ends', async (t) => {
  const rig = await hostFor(t)
  const socket = await rig.open('127.0.0.99')
  socket.write(postHead(1_000_000))
  const [chunk] = (await once(socket, 'data')) as [Buffer]
  t.match(chunk.toString(), /^HTTP\/1\.1 403 .*session_hosting_unproven/s)
  t.match(chunk.toString(), /Connection: close/i)
  await once(socket, 'end')
  socket.destroy()
  t.ok(untouched(rig))
})

test('a proven pod that is refused is answered after its body', async (t) => {
  const rig = await hostFor(t, { allow: false })
  const socket = await rig.open()
  let answered = ''
  socket.on('data', (chunk: Buffer) => (answered += chunk.toString()))
  socket.write(`${postHead(3_000_000)}${'a'.repeat(2_000_000)}`)
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_streams') === 2)
  t.equal(answered, '', 'it counts as a stream, and is not answered')
  socket.write('a'.repeat(1_000_000))
  await once(socket, 'end')
  t.match(answered, /^HTTP\/1\.1 403 .*session_hosting_not_allowed/s)
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_streams') === 1)
  socket.destroy()
  t.ok(untouched(rig))
})

test('what follows a request is neither a request nor a part of its body', async (t) => {
  const rig = await hostFor(t)
  const smuggled = `GET ${BUNDLE} HTTP/1.1\r\nHost: a\r\n\r\n`
  const bytes = `${postHead(5)}hello${smuggled.repeat(50)}`
  const { status } = await rig.ask([], { bytes })
  t.equal(status, 200)
  t.equal(rig.served.length, 1)
  t.equal((await rig.served[0]?.body)?.bytes, 5)
  const { status: second } = await rig.ask([], {
    bytes: `${getLines(BUNDLE).join('\r\n')}\r\n\r\n${smuggled}`,
  })
  t.equal(second, 200)
  t.equal(rig.served.length, 2)
})

test('a body passes byte for byte, wherever its chunks are cut and whatever it holds', async (t) => {
  const rig = await hostFor(t)
  const body = 'a\r\n\r\nGET / HTTP/1.1\r\n\r\nb\n\r\n\0c'
  const text = `${postHead(body.length)}${body}`
  for (const at of [
    1,
    40,
    text.length - body.length - 2,
    text.length - body.length,
    text.length - 9,
  ]) {
    const socket = await rig.open()
    socket.setNoDelay(true)
    socket.write(text.slice(0, at))
    await new Promise(setImmediate)
    for (const char of text.slice(at, -1)) socket.write(char)
    socket.write(text.slice(-1))
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    t.match(chunk.toString(), /^HTTP\/1\.1 200 /)
    socket.destroy()
    const { sha256, isWhole } = (await rig.served.at(-1)?.body) ?? {}
    t.strictSame([sha256, isWhole], [hash('sha256', body), true])
  }
})

const BAD_ANSWERS: Readonly<Record<string, (response: ServerResponse) => void>> = {
  redirect: (response) => {
    response.writeHead(302, { Location: 'http://elsewhere/', 'Content-Length': 0 })
    response.end()
  },
  'not modified': (response) => {
    response.writeHead(304)
    response.end()
  },
  chunked: (response) => {
    response.writeHead(200, { 'Transfer-Encoding': 'chunked' })
    response.end('abc')
  },
  'no length': (response) => {
    response.removeHeader('Content-Length')
    response.socket?.end('HTTP/1.1 200 OK\r\n\r\nabc')
  },
  'two lengths': (response) => {
    response.socket?.end('HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc')
  },
  'switching protocols': (response) => {
    response.socket?.end(
      'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n',
    )
  },
  'more than 4 GiB': (response) => {
    response.socket?.write('HTTP/1.1 200 OK\r\nContent-Length: 4294967297\r\n\r\n')
  },
  'a huge head': (response) => {
    response.socket?.write(
      `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(20_000)}\r\nContent-Length: 0\r\n\r\n`,
    )
  },
  'not HTTP': (response) => {
    response.socket?.end('hello\r\n\r\n')
  },
  nothing: (response) => {
    response.socket?.destroy()
  },
}

test('an answer that must not pass is a 502, also after a body', async (t) => {
  let bad: (response: ServerResponse) => void = () => {}
  const rig = await hostFor(t, {
    serve: ({ body }, response) => void body.then(() => bad(response)),
  })
  for (const [name, make] of Object.entries(BAD_ANSWERS)) {
    bad = make
    for (const asked of [rig.get(), rig.post('the body')]) {
      const { status, code, headers } = await asked
      t.equal(status, 502, name)
      t.match(code, /^gateway_(refused|gone)$/, name)
      t.equal(headers['location'], undefined)
    }
  }
})

test('an interim answer never passes, and the final one does', async (t) => {
  const rig = await hostFor(t, {
    serve: (_, response) => {
      response.writeEarlyHints({ link: '</a>; rel=preload' })
      response.writeProcessing()
      answer(response, 200, '{}')
    },
  })
  const { raw, status } = await rig.get()
  t.equal(status, 200)
  t.notMatch(raw, /HTTP\/1\.1 1\d\d/)
})

test('an answer that breaks off breaks off at the worker, and what is too much is dropped', async (t) => {
  let serve = (_response: ServerResponse) => {}
  const rig = await hostFor(t, { serve: (_, response) => serve(response) })
  serve = (response) => {
    response.socket?.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc')
  }
  const short = await rig.get()
  t.equal(short.headers['content-length'], '10')
  t.equal(short.body, 'abc')
  await waitUntil(() => rig.audit.some(({ code }) => code === 'gateway_gone'))
  serve = (response) => {
    response.socket?.end('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdefgh')
  }
  const long = await rig.get()
  t.equal(long.body, 'abc')
})

test('a gateway that cannot be reached is a 502, once the body is read', async (t) => {
  const rig = await hostFor(t)
  await rig.gateway.close()
  // The node's own stream ends with the gateway, a moment later.
  const { status, code } = await rig.post('x')
  t.ok(['gateway_unreachable', 'gateway_gone', 'session_hosting_no_stream'].includes(code ?? ''))
  t.ok(status >= 502)
})

test('a connection that is reset at any stage leaves nothing behind', async (t) => {
  const rig = await hostFor(t, {
    serve: async ({ body }, response) => {
      await body
      response.writeHead(200, { 'Content-Length': 1_000_000 })
      response.write('a'.repeat(500_000))
    },
  })
  const streams = async () => (await rig.metrics()).get('openclaw_k8s_streams')
  const head = postHead(100_000)
  for (const sent of [head.slice(0, 50), head, `${head}abc`, `${head}${'a'.repeat(100_000)}`]) {
    const socket = await rig.open()
    socket.write(sent)
    if (sent.length > head.length) {
      const before = rig.served.length
      await waitUntil(() => rig.served.length > before || rig.served.length > 0)
    }
    socket.resetAndDestroy()
    await waitUntil(async () => (await streams()) === 1)
  }
  const reading = await rig.open()
  reading.write(`${getLines(BUNDLE).join('\r\n')}\r\n\r\n`)
  await once(reading, 'data')
  reading.resetAndDestroy()
  await waitUntil(async () => (await streams()) === 1)
  const half = await rig.open()
  half.end(`${head}abc`)
  await waitUntil(async () => (await streams()) === 1)
  t.equal(await streams(), 1)
  t.equal((await rig.metrics()).get('openclaw_k8s_hosted_streams_active'), 0)
})
