/** Session hosting: which requests of which pods reach the gateway, and as what. */

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { writeFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { test } from 'tap'
import { createAuthority } from '../kit/authority.ts'
import {
  allowList,
  BUNDLE,
  ENVIRONMENT,
  GATEWAY_TOKEN,
  HASH,
  namesOf,
  startHostingRig,
  valuesOf,
  WORKER,
  type HostingRigOptions,
} from '../kit/hosting-rig.ts'
import { waitUntil } from '../kit/wait.ts'
import { startRig } from '../kit/rig.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'

type Teardown = { readonly teardown: (stop: () => unknown) => unknown }

const rigFor = async (t: Teardown, options: HostingRigOptions = {}) => {
  const rig = await startHostingRig(options)
  t.teardown(rig.stop)
  return rig
}

const LISTED = [
  BUNDLE,
  `${ENVIRONMENT}/snapshots/${HASH}/manifest`,
  `${ENVIRONMENT}/snapshots/${HASH}/pack`,
  `${ENVIRONMENT}/blobs/${HASH}`,
]

test('each listed route reaches the gateway as it was asked for, by a token or by the address', async (t) => {
  const rig = await rigFor(t)
  const { token } = await rig.startNode()
  for (const proof of [[], [`X-OpenClaw-SA-Token: ${token}`]]) {
    for (const path of LISTED) {
      const { status, body } = await rig.get(path, proof)
      t.strictSame([status, body], [200, '{"ok":true}'], path)
      t.equal(rig.served.at(-1)?.path, path)
    }
    const { status } = await rig.post('the result of a turn', proof)
    t.equal(status, 200)
    const { bytes, isWhole } = (await rig.served.at(-1)?.body) ?? {}
    t.strictSame([bytes, isWhole], ['the result of a turn'.length, true])
    const upgraded = await rig.upgrade(proof)
    t.equal(upgraded.status, 101)
    upgraded.socket.destroy()
  }
})

test('the gateway gets the headers of the list, each once, and no word of the pod', async (t) => {
  const rig = await rigFor(t)
  const { token } = await rig.startNode()
  const forged = [
    `X-OpenClaw-SA-Token: ${token}`,
    'X-Forwarded-For: 127.0.0.1',
    'X-Forwarded-User: admin',
    'X-OpenClaw-Scopes: operator.admin',
    'X-OpenClaw-K8s-Pod-Name: another',
    'Forwarded: for=127.0.0.1',
    'Cookie: a=b',
    'User-Agent: node',
    'Connection: keep-alive, authorization',
    'Accept-Encoding: gzip',
  ]
  await rig.get(BUNDLE, forged)
  const rawHeaders = rig.served[0]?.rawHeaders ?? []
  const common = ['authorization', 'connection', 'host', 'x-forwarded-for', 'x-forwarded-host']
  const rest = ['x-forwarded-proto', 'x-openclaw-scopes']
  t.strictSame([...namesOf(rawHeaders)].sort(), ['accept-encoding', ...common, ...rest])
  t.strictSame(valuesOf(rawHeaders, 'authorization'), [`Bearer ${GATEWAY_TOKEN}`])
  t.strictSame(valuesOf(rawHeaders, 'x-forwarded-for'), ['127.0.0.11'])
  t.strictSame(valuesOf(rawHeaders, 'x-openclaw-scopes'), [''])
  t.strictSame(valuesOf(rawHeaders, 'host'), [`127.0.0.1:${rig.gateway.port}`])

  await rig.post('x', forged)
  const posted = rig.served[1]?.rawHeaders ?? []
  const own = ['accept-encoding', 'content-length', 'content-type']
  t.strictSame([...namesOf(posted)].sort(), [...own, ...common, ...rest].sort())

  const { socket } = await rig.upgrade(
    [...forged, `Authorization: Bearer ${GATEWAY_TOKEN}`].filter(
      (line) => !line.startsWith('Connection'),
    ),
  )
  const [hosted] = rig.hosted()
  const ws = ['sec-websocket-key', 'sec-websocket-version', 'upgrade']
  t.strictSame(
    [...namesOf(hosted?.handshake.rawHeaders ?? [])].sort(),
    [...common, ...ws, ...rest].sort(),
  )
  t.strictSame(valuesOf(hosted?.handshake.rawHeaders ?? [], 'x-forwarded-for'), ['127.0.0.11'])
  socket.destroy()
  t.notMatch(JSON.stringify([rig.log, rig.audit]), token)
})

test('the worker gets status, body and the listed headers of an answer, and no other', async (t) => {
  const rig = await rigFor(t, {
    serve: (_, response) => {
      response.writeHead(429, {
        'Content-Type': 'application/json',
        'Content-Length': 2,
        'Content-Encoding': 'identity',
        Vary: 'Accept-Encoding',
        'Cache-Control': 'no-store',
        'Retry-After': '300',
        'X-OpenClaw-Content-Sha256': HASH,
        'Set-Cookie': 'a=b',
        Server: 'gateway',
        Location: '/elsewhere',
        'Keep-Alive': 'timeout=5',
      })
      response.end('{}')
    },
  })
  await rig.startNode()
  const { status, headers, body } = await rig.get()
  t.strictSame([status, body], [429, '{}'])
  const passed = ['cache-control', 'content-encoding', 'content-length', 'content-type']
  const more = ['retry-after', 'vary', 'x-openclaw-content-sha256']
  t.strictSame(Object.keys(headers).sort(), [...passed, 'connection', 'date', ...more].sort())
  t.equal(headers['connection'], 'close')
})

test('a worker of a hosted session exchanges frames with the gateway', async (t) => {
  const rig = await rigFor(t)
  await rig.startNode()
  const worker = await rig.connect({ carrier: 'none', url: `${rig.url}${WORKER}` } as never)
  if (!worker.ok) throw new Error('refused')
  const echoed = new Promise<string>((resolve) =>
    worker.socket.once('message', (data) => resolve((data as Buffer).toString())),
  )
  worker.socket.send('x'.repeat(1_000_000))
  t.equal((await echoed).length, 1_000_000)
  worker.socket.close(1000, 'worker stopped')
  await waitUntil(() =>
    rig.audit.some(({ route, code }) => route === 'worker' && code === 'completed'),
  )
})

test('without a live stream of the pod nothing reaches the gateway', async (t) => {
  const rig = await rigFor(t)
  const pod = rig.createPod()
  const proof = [`X-OpenClaw-SA-Token: ${rig.mint({ pod })}`]
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_watched_pods') === 1)
  for (const shown of [[], proof]) {
    for (const asked of [rig.get(BUNDLE, shown), rig.post('x', shown), rig.upgrade(shown)]) {
      const { status, code } = await asked
      t.strictSame([status, code], [503, 'session_hosting_no_stream'])
    }
  }
  t.equal(rig.served.length + rig.hosted().length, 0)
})

test('a stream that has ended proves nothing any more', async (t) => {
  const rig = await rigFor(t)
  const node = await rig.startNode()
  t.equal((await rig.get()).status, 200)
  node.end()
  await node.closed
  await waitUntil(() => rig.audit.some(({ event }) => event === 'k8s-session-closed'))
  await waitUntil(async () => (await rig.get()).code === 'session_hosting_no_stream')
  const proof = [`X-OpenClaw-SA-Token: ${node.token}`]
  t.equal((await rig.get(BUNDLE, proof)).code, 'session_hosting_no_stream')
})

test('a pod whose entry does not allow hosting is refused, by either proof', async (t) => {
  const rig = await rigFor(t, { allow: false })
  const { token } = await rig.startNode()
  for (const shown of [[], [`X-OpenClaw-SA-Token: ${token}`]]) {
    for (const asked of [rig.get(BUNDLE, shown), rig.post('x', shown), rig.upgrade(shown)]) {
      const { status, code } = await asked
      t.strictSame([status, code], [403, 'session_hosting_not_allowed'])
    }
  }
  t.equal(rig.served.length + rig.hosted().length, 0)
})

test('where hosting is off the routes have a code of their own', async (t) => {
  const rig = await rigFor(t, { set: ['gateway.sessionHosting=false', allowList(false)] })
  const { token } = await rig.startNode()
  for (const shown of [[], [`X-OpenClaw-SA-Token: ${token}`]]) {
    for (const asked of [rig.get(BUNDLE, shown), rig.post('x', shown), rig.upgrade(shown)]) {
      const { status, code } = await asked
      t.strictSame([status, code], [403, 'session_hosting_disabled'])
    }
  }
  t.equal(rig.served.length + rig.hosted().length, 0)
})

test('the stream protocol knows no hosting: its paths mean nothing, its requests are refused', async (t) => {
  const rig = await startRig()
  t.teardown(rig.stop)
  const token = rig.mint({ pod: rig.createPod() })
  const bearer = `Authorization: Bearer ${token}`
  const common = { port: rig.port, localAddress: '127.0.0.11' }
  const upgraded = await rawUpgrade({ ...common, lines: upgradeLines(WORKER, [bearer]) })
  t.equal(upgraded.status, 101)
  t.equal(rig.gateway.handshakes.at(-1)?.path, '/')
  upgraded.socket.destroy()
  t.equal(
    (await rawUpgrade({ ...common, lines: [`GET ${BUNDLE} HTTP/1.1`, 'Host: a'] })).status,
    426,
  )
})

test('an address proves a pod only where it is enforced, not local, and belongs to one pod', async (t) => {
  const reporting = await rigFor(t, { set: ['k8sTrust.sourceAddress=report'] })
  const node = await reporting.startNode()
  t.equal((await reporting.get()).code, 'session_hosting_unproven')
  const proof = [`X-OpenClaw-SA-Token: ${node.token}`]
  t.equal((await reporting.get(BUNDLE, proof)).status, 200, 'its token does')

  const rig = await rigFor(t)
  await rig.startNode()
  const elsewhere = { localAddress: '127.0.0.77' }
  t.equal((await rig.get(BUNDLE, [], elsewhere)).code, 'session_hosting_unproven')
  const local = { localAddress: '127.0.0.1' }
  t.equal((await rig.get(BUNDLE, [], local)).code, 'source_address_local')
  rig.createPod('worker-twin', '127.0.0.11')
  await waitUntil(async () => (await rig.get()).code === 'session_hosting_unproven')
})

test('a pod on the host network is not proven by its address', async (t) => {
  const rig = await rigFor(t, { set: ['k8sTrust.allowHostNetwork=true'] })
  const pod = rig.api.createPod({
    namespace: 'openclaw',
    name: 'worker-host',
    serviceAccount: 'openclaw-worker',
    ips: ['127.0.0.12'],
    hostNetwork: true,
  })
  const token = rig.mint({ pod })
  const node = await rig.openNode({ localAddress: '127.0.0.12', auth: { token } })
  t.equal((await node.connect())?.ok, true)
  const at = { localAddress: '127.0.0.12' }
  t.equal((await rig.get(BUNDLE, [], at)).code, 'session_hosting_unproven')
  t.equal((await rig.get(BUNDLE, [`X-OpenClaw-SA-Token: ${token}`], at)).status, 200)
})

test('a token goes through the whole line, and only from the address of its pod', async (t) => {
  const rig = await rigFor(t)
  const first = await rig.startNode('worker-a', '127.0.0.11')
  const second = await rig.startNode('worker-b', '127.0.0.12')
  const shown = (token: string) => [`X-OpenClaw-SA-Token: ${token}`]
  const cases = [
    ['source_address_mismatch', shown(second.token)],
    ['audience_mismatch', shown(rig.mint({ pod: first.pod, audiences: ['another'] }))],
    ['token_malformed', shown('not-a-token')],
    ['credential_repeated', [...shown(first.token), ...shown(first.token)]],
  ] as const
  for (const [expected, extra] of cases) {
    t.equal((await rig.get(BUNDLE, extra)).code, expected)
    t.equal((await rig.post('body', extra)).code, expected)
    t.equal((await rig.upgrade(extra)).code, expected)
  }
  t.equal(rig.served.length + rig.hosted().length, 0)
})

test('the pod’s token in Authorization is not taken for one, and is not passed on', async (t) => {
  const rig = await rigFor(t)
  const { token } = await rig.startNode()
  for (const shown of [token, 'eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.c2lnbmF0dXJl']) {
    const lines = [`GET ${BUNDLE} HTTP/1.1`, 'Host: a', `Authorization: Bearer ${shown}`]
    const { status, code } = await rig.ask(lines)
    t.strictSame([status, code], [400, 'session_hosting_malformed'])
  }
  t.equal(rig.served.length, 0)
})

test('over TLS the routes work as well, and the gateway is told so', async (t) => {
  const rig = await rigFor(t, { isTls: true })
  await rig.startNode()
  const tls = { ca: rig.ca, servername: 'sidecar' }
  const body = 'x'.repeat(100_000)
  t.equal((await rig.get(BUNDLE, [], { tls })).status, 200)
  t.equal((await rig.post(body, [], { tls })).status, 200)
  t.equal((await rig.served[1]?.body)?.bytes, body.length)
  t.strictSame(valuesOf(rig.served[1]?.rawHeaders ?? [], 'x-forwarded-proto'), ['https'])
  const { status, socket } = await rig.upgrade([], { tls })
  t.equal(status, 101)
  socket.destroy()
})

test('mutual TLS holds for the routes too', async (t) => {
  const authority = await createAuthority('workers')
  const directory = t.testdir()
  const file = async (name: string, text: string) => {
    await writeFile(join(directory, name), text)
    return join(directory, name)
  }
  const own = await authority.issue({ commonName: 'sidecar', hosts: ['localhost'] })
  const [certFile, keyFile, clientCaFile] = await Promise.all([
    file('tls.crt', own.cert),
    file('tls.key', own.key),
    file('ca.crt', authority.cert),
  ])
  const listen = `listen.tls={certFile: ${certFile}, keyFile: ${keyFile}, clientCaFile: ${clientCaFile}}`
  const rig = await rigFor(t, { set: [listen] })
  const pod = rig.createPod()
  const shown = [`X-OpenClaw-SA-Token: ${rig.mint({ pod })}`]
  const { cert, key } = await authority.issue({ commonName: 'worker', usage: 'client' })
  const known = { ca: authority.cert, cert, key }
  t.equal((await rig.get(BUNDLE, shown, { tls: known })).code, 'session_hosting_no_stream')
  const stranger = await rig
    .get(BUNDLE, shown, { tls: { ca: authority.cert } })
    .catch(() => undefined)
  t.not(stranger?.status, 200)
  t.equal(stranger?.code, undefined)
  t.equal(rig.served.length, 0)
})

test('a transfer keeps no token of its pod', async (t) => {
  const requests: IncomingMessage[] = []
  const rig = await rigFor(t, { serve: () => {} })
  const { token } = await rig.startNode()
  const onRequest = (message: unknown) =>
    void requests.push((message as { readonly request: IncomingMessage }).request)
  subscribe('http.server.request.start', onRequest)
  t.teardown(() => unsubscribe('http.server.request.start', onRequest))
  const asked = rig.get(BUNDLE, [`X-OpenClaw-SA-Token: ${token}`])
  await waitUntil(() => rig.served.length === 1)
  const transfers = requests.filter(
    ({ url, socket }) => url === BUNDLE && socket.localPort === rig.port,
  )
  t.equal(transfers.length, 1)
  for (const { rawHeaders, headers, headersDistinct } of transfers) {
    t.strictSame([rawHeaders, headers, headersDistinct], [[], {}, {}])
  }
  rig.api.deletePod('openclaw', 'worker-a')
  t.equal((await asked).code, 'pod_deleted')
})
