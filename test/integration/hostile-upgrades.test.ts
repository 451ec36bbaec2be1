/** No request ends the process, whatever body it announces and however its connection ends. */

import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { test, type Test } from 'tap'
import { startOpenClawRig } from '../kit/openclaw-rig.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { startRig } from '../kit/rig.ts'
import { waitUntil } from '../kit/wait.ts'

type Target = {
  readonly port: number
  readonly metrics: () => Promise<ReadonlyMap<string, number>>
  readonly ca?: string
}

/** Over TLS, `tcp` is the connection below: only that can be reset. */
type Client = { readonly socket: Socket; readonly tcp: Socket }

const ADDRESS = '127.0.0.11'
const NO_LIMIT = ['limits.failuresPerAddress=0']

/** Heads that announce a body, each with a part of it. */
const UNFINISHED: readonly (readonly [head: readonly string[], body: string])[] = [
  [upgradeLines('/', ['Content-Length: 10']), 'abc'],
  [upgradeLines('/', ['Content-Length: 10']), ''],
  [upgradeLines('/', ['Content-Length: 10', 'Expect: 100-continue']), ''],
  [upgradeLines('/', ['Transfer-Encoding: chunked']), ''],
  [upgradeLines('/', ['Transfer-Encoding: chunked']), '5\r\nab'],
  [upgradeLines('/', ['Transfer-Encoding: chunked', 'Trailer: a']), '1\r\na\r\n0\r\n'],
  [['POST / HTTP/1.1', ...upgradeLines().slice(1), 'Content-Length: 10'], 'abc'],
  [['CONNECT a:1 HTTP/1.1', 'Host: a', 'Content-Length: 10'], 'abc'],
  [['CONNECT a:1 HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked'], '1\r\na'],
]

/** What happens to the connection after the request is sent. */
const ENDINGS: Readonly<Record<string, (client: Client) => Promise<unknown> | undefined>> = {
  'a reset at once': ({ tcp }) => void tcp.resetAndDestroy(),
  'a reset after the answer': async ({ socket, tcp }) => {
    await once(socket, 'data')
    tcp.resetAndDestroy()
  },
  'a half-close': async ({ socket }) => {
    socket.resume().end()
    await once(socket, 'close')
  },
  'the rest of a body, then a reset': async ({ socket, tcp }) => {
    socket.write('defghij\r\n0\r\n\r\n'.repeat(100))
    await once(socket, 'data')
    tcp.resetAndDestroy()
  },
  'no chunk at all, then silence': async ({ socket }) => {
    socket.resume().write('zz\r\n\r\n')
    await once(socket, 'close')
  },
}

const open = async ({ port, ca }: Target): Promise<Client> => {
  const tcp = connectTcp({ host: '127.0.0.1', port, localAddress: ADDRESS })
  tcp.on('error', () => {})
  const socket = ca === undefined ? tcp : connectTls({ socket: tcp, host: '127.0.0.1', ca })
  socket.on('error', () => {})
  await once(socket, ca === undefined ? 'connect' : 'secureConnect')
  return { tcp, socket }
}

/** An uncaught error of the sidecar would be an error of this process, and fail the file. */
const attack = async (t: Test, target: Target) => {
  for (const [ending, end] of Object.entries(ENDINGS)) {
    await Promise.all(
      UNFINISHED.map(async ([head, body]) => {
        const client = await open(target)
        client.socket.write(`${head.join('\r\n')}\r\n\r\n${body}`)
        await end(client)
      }),
    )
    await waitUntil(async () => (await target.metrics()).get('openclaw_k8s_pending_sockets') === 0)
    t.pass(ending)
  }
}

test('an upgrade with a body is refused with an answer, whether the body comes or not', async (t) => {
  const rig = await startRig({ set: NO_LIMIT })
  t.teardown(() => rig.stop())
  for (const [head, body] of UNFINISHED) {
    const bytes = `${head.join('\r\n')}\r\n\r\n${body}`
    const answer = await rawUpgrade({ port: rig.port, localAddress: ADDRESS, bytes })
    const status = head[0]?.startsWith('GET') === true ? 400 : 405
    t.equal(answer.status, status, `${head[0]} ${head.slice(6).join(', ')}`)
    answer.socket.destroy()
  }
  t.equal(rig.gateway.handshakes.length, 0)
})

test('a refused request whose body is broken is recorded once', async (t) => {
  const rig = await startRig({ set: NO_LIMIT })
  t.teardown(() => rig.stop())
  const { socket } = await open(rig)
  const lines = upgradeLines('/', ['Transfer-Encoding: chunked'])
  socket.write(`${lines.join('\r\n')}\r\n\r\n`)
  await once(socket, 'data')
  socket.resume().write('no chunk\r\n')
  await once(socket, 'close')
  const metrics = await rig.metrics()
  t.equal(metrics.get('openclaw_k8s_upgrades_refused_total{code="upgrade_malformed"}'), 1)
})

test('the stream protocol survives every unfinished body and every end of it', async (t) => {
  const rig = await startRig({ set: NO_LIMIT })
  t.teardown(() => rig.stop())
  await attack(t, rig)
  const worker = await rig.connect({ token: rig.mint({ pod: rig.createPod() }) })
  t.equal(worker.ok, true, 'and lets workers in as before')
  if (worker.ok) worker.socket.terminate()
})

test('the openclaw protocol survives them too, over TLS', async (t) => {
  const rig = await startOpenClawRig({ set: NO_LIMIT, isTls: true })
  t.teardown(() => rig.stop())
  await attack(t, rig)
})

test('a sidecar whose trust is switched off survives them too', async (t) => {
  const rig = await startRig({ set: [...NO_LIMIT, 'k8sTrust.enabled=false'] })
  t.teardown(() => rig.stop())
  await attack(t, rig)
})
