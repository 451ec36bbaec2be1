/** `GET /status` tells callers on this machine what the sidecar does, and everybody else nothing. */

import { request, type IncomingHttpHeaders } from 'node:http'
import tap, { test } from 'tap'
import type { Status } from '@openclaw-k8s/auth-sidecar/edge/status.ts'
import { AUDIENCE, startRig } from '../kit/rig.ts'
import { waitUntil } from '../kit/wait.ts'

const LOCAL = '127.0.0.1'
const rig = await startRig({ isLocalAddress: (address) => address === LOCAL })
tap.teardown(() => rig.stop())
const { port } = new URL(rig.adminUrl)

type Asked = {
  readonly path?: string
  readonly method?: string
  readonly localAddress?: string
  readonly headers?: Readonly<Record<string, string>>
}
type Answer = {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

const ask = ({
  path = '/status',
  method = 'GET',
  localAddress = LOCAL,
  headers = {},
}: Asked = {}) =>
  new Promise<Answer>((resolve, reject) => {
    const sent = request({ host: LOCAL, port, path, method, localAddress, headers, agent: false })
    sent.once('error', reject)
    sent.once('response', (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => void (text += chunk))
      response.once('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text }),
      )
    })
    sent.end()
  })

const readStatus = async (): Promise<Status> => {
  const { status, text } = await ask()
  if (status !== 200) throw new Error(`${status}: ${text}`)
  return JSON.parse(text) as Status
}

test('a stream is shown with its pod, account, node, age and what it carried', async (t) => {
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const worker = await rig.connect({ token: rig.mint({ pod }) })
  if (!worker.ok) throw new Error('refused')
  worker.socket.send('hello')
  await waitUntil(async () => (await readStatus()).streams.listed[0]?.messagesDown === 1)
  const { streams, at, startedAt } = await readStatus()
  t.match(streams, {
    open: 1,
    pods: 1,
    listed: [
      {
        namespace: 'openclaw',
        podName: 'worker-a',
        serviceAccount: 'openclaw-worker',
        nodeName: 'node-1',
        address: '127.0.0.11',
        own: 1,
        hosted: 0,
        messagesUp: 1,
        messagesDown: 1,
        bytesUp: Number,
        bytesDown: Number,
      },
    ],
  })
  const since = streams.listed[0]?.since ?? ''
  t.ok(startedAt <= since && since <= at, `${startedAt} ${since} ${at}`)
  worker.socket.terminate()
  await waitUntil(async () => (await readStatus()).streams.open === 0)
})

test('a refusal is shown with its code and pod, and whether the name is proven', async (t) => {
  const pod = rig.createPod('worker-b', '127.0.0.12')
  const stolen = await rig.connect({ token: rig.mint({ pod }), localAddress: '127.0.0.13' })
  t.notOk(stolen.ok)
  const { refusals } = await readStatus()
  t.match(
    refusals.find(({ code }) => code === 'source_address_mismatch'),
    {
      kind: 'denial',
      message: /address/,
      address: '127.0.0.13',
      pod: { namespace: 'openclaw', serviceAccount: 'openclaw-worker', podName: 'worker-b' },
      isSigned: true,
      isOfManyPods: false,
      count: 1,
    },
  )
})

test('readiness is shown by check, with the ages of watch and keys', async (t) => {
  await waitUntil(async () => (await readStatus()).isReady)
  const status = await readStatus()
  t.same(
    status.checks.map(({ name }) => name),
    ['serving', 'jwks', 'pods', 'gateway'],
  )
  t.match(status, { version: 'test', watch: { scopes: 1, bad: [] } })
  t.ok(status.watch.staleSeconds >= 0)
  t.ok((status.keys.ageSeconds ?? -1) >= 0)
})

test('no token and no secret is shown', async (t) => {
  const pod = rig.createPod('worker-c', '127.0.0.14')
  const token = rig.mint({ pod })
  const worker = await rig.connect({ token, localAddress: '127.0.0.14' })
  t.ok(worker.ok)
  await rig.connect({ token: `${token}x`, localAddress: '127.0.0.14' })
  const own = (await rig.readFile(rig.tokenFile)).trim()
  const { text } = await ask()
  t.match(text, 'worker-c')
  for (const secret of [own, token, ...token.split('.'), AUDIENCE]) t.notOk(text.includes(secret))
  if (worker.ok) worker.socket.terminate()
})

test('from the pod network it is not found, like any path that is not served', async (t) => {
  const answer = await ask({ localAddress: '127.0.0.11', headers: { host: 'localhost' } })
  const unknown = await ask({ localAddress: '127.0.0.11', path: '/statuz' })
  t.equal(answer.status, 404)
  t.equal(answer.text, unknown.text.replaceAll('statuz', 'status'))
  const proxied = await ask({ headers: { 'X-Forwarded-For': '10.0.0.1' } })
  t.match(proxied, { status: 404, text: answer.text })
})

test('a page of another site gets nothing: neither by its name, nor by its Origin', async (t) => {
  const tries: readonly Readonly<Record<string, string>>[] = [
    { host: 'rebound.example' },
    { host: `rebound.example:${port}` },
    { origin: 'http://evil.example' },
    { origin: 'http://localhost:3000' },
    { origin: 'null' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
  ]
  for (const headers of tries) {
    const answer = await ask({ headers })
    t.match(answer, { status: 404, text: /^the status is shown at http:\/\/localhost/ })
    t.equal(answer.headers['access-control-allow-origin'], undefined)
  }
})

test('it is read with GET, and a browser may neither keep, frame nor run it', async (t) => {
  for (const method of ['POST', 'HEAD', 'PUT', 'DELETE', 'OPTIONS']) {
    t.equal((await ask({ method })).status, 404, method)
  }
  for (const host of [`localhost:${port}`, `127.0.0.1:${port}`, `[::1]:${port}`]) {
    t.match(await ask({ headers: { host, origin: `http://${host}` } }), {
      status: 200,
      headers: {
        'cache-control': 'no-store',
        'content-security-policy': /^default-src 'none'/,
        'content-type': /^application\/json/,
        'cross-origin-resource-policy': 'same-origin',
        'x-content-type-options': 'nosniff',
      },
    })
  }
})

test('on the host network it is off, and says why to callers on loopback only', async (t) => {
  const onHost = await startRig({
    env: { KUBERNETES_SERVICE_HOST: '10.96.0.1', HOST_IP: '10.0.0.1' },
    interfaces: { eth0: [{ address: '10.0.0.1' }] },
  })
  t.teardown(() => onHost.stop())
  const answer = await fetch(`${onHost.adminUrl}/status`)
  t.equal(answer.status, 404)
  t.match(await answer.text(), /^the status is off on the host network/)
  t.ok(onHost.log.some((line) => line.includes('the status is off on the host network')))
})
