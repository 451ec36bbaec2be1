/** `auth-sidecar connect` as a process, before a sidecar that verifies what it shows. */

import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { run } from '@openclaw-k8s/auth-sidecar/commands/connect.ts'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import type { WebSocket } from 'ws'
import { startConnectRig } from '../kit/connect-rig.ts'
import { createDevice, openLightNode } from '../kit/light-node.ts'
import { startOpenClawRig } from '../kit/openclaw-rig.ts'
import { runCommand } from '../kit/run-command.ts'
import { startServeRig } from '../kit/serve-rig.ts'
import { startSidecarProcess } from '../kit/sidecar-process.ts'
import { waitUntil } from '../kit/wait.ts'
import { closed, connectWorker, nextMessage, openWorker } from '../kit/worker-client.ts'

/** `connect` dials from here, so this is the address of its pod. */
const POD_ADDRESS = '127.0.0.1'

const startPair = async (t: Test) => {
  const rig = await startServeRig({ workers: 0, admin: 0 })
  t.teardown(() => rig.close())
  const pod = rig.createPod('worker-a', POD_ADDRESS)
  const tokenFile = join(rig.directory, 'worker-token')
  const rotate = (expiresInS = 3600) => writeFileSync(tokenFile, rig.mint({ pod, expiresInS }))
  rotate()
  const args = ['--gateway', rig.url, '--listen', '127.0.0.1:0', '--token-file', tokenFile]
  const connect = startSidecarProcess(['connect', ...args])
  t.teardown(async () => {
    connect.signal('SIGKILL')
    await connect.exited
  })
  const { listen } = await connect.stderr.wait(({ msg }) => msg === 'listening')
  const url = `ws://${String(listen)}`
  return { rig, pod, rotate, connect, url, listen: String(listen) }
}

test('beside a sidecar that verifies tokens', async (suite) => {
  const pair = await startPair(suite)

  await suite.test(
    'a stream worker enters without a token, and the gateway is told which pod it is',
    async (t) => {
      const { rig, url } = pair
      const socket = await openWorker({ url, carrier: 'none' })
      for (const text of ['one', 'two']) {
        socket.send(text)
        t.equal((await nextMessage(socket)).text, text)
      }
      const large = Buffer.alloc(20 * 1024 * 1024, 'a')
      socket.send(large)
      t.ok((await nextMessage(socket)).data.equals(large))
      const headers = rig.gateway.handshakes[0]?.headers ?? {}
      t.equal(headers['x-openclaw-k8s-pod-name'], 'worker-a')
      t.equal(headers['x-forwarded-user'], 'system:serviceaccount:openclaw:openclaw-worker')
      socket.close(1000, 'done')
      t.strictSame(await closed(socket), { code: 1000, reason: 'done' })
    },
  )

  await suite.test(
    'after a rotation a worker that comes back shows the new token, and the open stream stays',
    async (t) => {
      const { rig, url, rotate, connect } = pair
      const before = await openWorker({ url, carrier: 'none' })
      rotate(-60)
      const refused = await connectWorker({ url, carrier: 'none' })
      t.match(refused, { ok: false, status: 401, body: { error: { type: 'token_expired' } } })
      rotate()
      const after = await openWorker({ url, carrier: 'none' })
      before.send('still open')
      t.equal((await nextMessage(before)).text, 'still open')
      t.equal(rig.gateway.handshakes.length, 3)
      const states = connect.stderr.records.filter(({ code }) => code !== undefined)
      t.match(states, [{ code: 'refused', status: 401 }])
      for (const socket of [before, after]) socket.close()
    },
  )

  await suite.test('signals that others handle do not end it', async (t) => {
    const { url, connect } = pair
    for (const name of ['SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const) connect.signal(name)
    const socket = await openWorker({ url, carrier: 'none' })
    socket.send('here')
    t.equal((await nextMessage(socket)).text, 'here')
    socket.close()
  })

  await suite.test('the probe finds it where it listens, and nothing else', async (t) => {
    const { listen } = pair
    const check = (address: string) => runCommand(run, { argv: ['--check', '--listen', address] })
    t.match(await check(listen), { exitCode: 0, stdout: '', stderr: '' })
    const other = createServer((socket) =>
      socket.resume().end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'),
    )
    await once(other.listen(0, '127.0.0.1'), 'listening')
    const { port } = other.address() as { port: number }
    t.match(await check(`127.0.0.1:${port}`), { exitCode: 69, stderr: /it answered 200/ })
    other.close()
    await once(other, 'close')
    t.match(await check(`127.0.0.1:${port}`), { exitCode: 69, stderr: /does not answer/ })
    t.match(await check('10.0.0.1:1'), { exitCode: 78 })
  })

  await suite.test('a port that is taken ends it with 69, and says so', async (t) => {
    const { listen } = pair
    const second = startSidecarProcess(['connect', '--gateway', 'wss://a', '--listen', listen])
    t.strictSame(await second.exited, { code: 69, signal: null })
    t.match(second.stderr.records[0], { level: 'fatal', err: { code: 'EADDRINUSE' } })
  })

  await suite.test(
    'the end of the pod ends the stream behind connect, with its own code',
    async (t) => {
      const { rig, pod, url } = pair
      const socket = await openWorker({ url, carrier: 'none' })
      rig.api.deletePod('openclaw', pod.metadata.name, { gracePeriodSeconds: 0 })
      t.strictSame(await closed(socket), { code: 1008, reason: 'pod_deleted' })
    },
  )
})

test('a drain of the sidecar reaches the worker, and connect outlives it', async (t) => {
  const { rig, url, connect } = await startPair(t)
  const socket = await openWorker({ url, carrier: 'none' })
  rig.sidecar.signal('SIGTERM')
  t.strictSame(await closed(socket), { code: 1012, reason: 'draining' })
  await rig.sidecar.exited
  const refused = await connectWorker({ url, carrier: 'none' })
  t.match(refused, { ok: false, status: 503, body: { error: { type: 'sidecar_unreachable' } } })
  await connect.stderr.wait(({ msg }) => msg === 'workers cannot connect')
})

test('SIGTERM ends it with 0, and its streams in order', async (t) => {
  const { url, connect } = await startPair(t)
  const socket = await openWorker({ url, carrier: 'none' })
  connect.signal('SIGTERM')
  t.equal((await closed(socket)).code, 1006)
  t.strictSame(await connect.exited, { code: 0, signal: null })
  const messages = connect.stderr.records.map(({ msg }) => msg)
  t.strictSame(messages, ['listening', 'stopping'])
  t.equal(connect.stdout.text, '')
})

test('when descriptors run out open streams go on, and workers enter again later', async (t) => {
  const gateway = await startGatewayStub()
  const directory = t.testdir({ token: 'the.current.token' })
  const args = ['--gateway', gateway.url, '--listen', '127.0.0.1:0']
  const connect = startSidecarProcess(
    ['connect', ...args, '--token-file', join(directory, 'token')],
    { openFilesMax: 64 },
  )
  t.teardown(async () => {
    connect.signal('SIGKILL')
    await connect.exited
    await gateway.close()
  })
  const { listen } = await connect.stderr.wait(({ msg }) => msg === 'listening')
  const worker = { url: `ws://${String(listen)}`, carrier: 'none' } as const
  const streams: WebSocket[] = []
  const answers: number[] = []
  // Each stream takes two.
  for (let n = 0; n < 40; n += 1) {
    const outcome = await connectWorker(worker).catch(() => undefined)
    if (outcome?.ok === true) streams.push(outcome.socket)
    else if (outcome !== undefined) answers.push(outcome.status)
  }
  t.ok(streams.length > 10 && streams.length < 40, `${streams.length} streams`)
  t.strictSame(
    answers.filter((status) => status !== 503),
    [],
  )
  streams[0]?.send('hello')
  t.equal((await nextMessage(streams[0]!)).text, 'hello')
  for (const socket of streams) socket.terminate()
  await waitUntil(async () => {
    const outcome = await connectWorker(worker).catch(() => undefined)
    if (outcome?.ok === true) outcome.socket.terminate()
    return outcome?.ok === true
  })
  t.ok(connect.stderr.records.length < 20, connect.stderr.text)
  t.notMatch(connect.stderr.text, /a bug/)
})

test('mistakes on the command line are explained', async (t) => {
  t.match(await runCommand(run, { argv: ['--nonsense'] }), { exitCode: 64, stderr: /Usage:/ })
  t.match(await runCommand(run, { argv: ['stray'] }), { exitCode: 64 })
  t.match(await runCommand(run, { argv: ['--gateway'] }), { exitCode: 64 })
  t.match(await runCommand(run, {}), {
    exitCode: 78,
    stderr: /--gateway: The option is missing\.\n {4}Hint: /,
  })
  const inPod = { KUBERNETES_SERVICE_HOST: '10.96.0.1' }
  t.match(await runCommand(run, { argv: ['--gateway', 'wss://a'], env: inPod }), {
    exitCode: 78,
    stderr: /HOST_IP is not set/,
  })
})

test('a node of OpenClaw that says nothing of a token is let in, and renewed tokens bring it back', async (t) => {
  const openclaw = await startOpenClawRig({ isLocalAddress: () => false })
  t.teardown(() => openclaw.stop())
  const pod = openclaw.createPod('worker-a', POD_ADDRESS)
  const rig = await startConnectRig(t, { target: { url: new URL(openclaw.url) } })
  const device = createDevice()
  const enter = async () => {
    const node = await openLightNode({ url: rig.url, localAddress: '127.0.0.1', device })
    return { node, answer: await node.connect({ auth: {} }) }
  }
  rig.writeToken(openclaw.mint({ pod }))
  const first = await enter()
  t.equal(first.answer?.ok, true)
  first.node.end()
  await waitUntil(() => openclaw.gateway.connections.size <= 1)
  rig.writeToken(openclaw.mint({ pod, expiresInS: 7200 }))
  const second = await enter()
  t.equal(second.answer?.ok, true)
  second.node.end()
})
