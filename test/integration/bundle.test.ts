/** The bundle that goes into the image: it does what the sources do, without the packages' ballast. */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test, type Test } from 'tap'
import { PAGE } from '@openclaw-k8s/auth-sidecar/edge/page-files.ts'
import { startGatewayStub, type GatewayStubOptions } from '@openclaw-k8s/gateway-stub'
import { startSidecarProcess } from '../kit/sidecar-process.ts'
import { waitForProcess } from '../kit/wait.ts'
import { startKubeApi } from '../kit/kube-api.ts'
import { createPairedDevices } from '../kit/paired-devices.ts'
import { nextMessage, openWorker } from '../kit/worker-client.ts'

const BUNDLER = fileURLToPath(new URL('../../sidecar/bundle.ts', import.meta.url))
const DOCKERFILE = new URL('../../Dockerfile.sidecar', import.meta.url)
const SECRET = 'the-secret-of-the-gateway-itself'
const READY_MS_MAX = 15_000
/** The start alone brings it to 7.5 MiB, which V8 then keeps; after a collection 0.75 MiB are left. */
const YOUNG_GENERATION_BYTES_MAX = 4 * 1024 * 1024

const directory = mkdtempSync(join(tmpdir(), 'auth-sidecar-bundle-'))
process.once('exit', () => rmSync(directory, { recursive: true }))
execFileSync(process.execPath, [BUNDLER, directory])
const main = join(directory, 'auth-sidecar')
const program = readFileSync(main, 'latin1')

/** The bundle between an API server and a gateway, once it is ready. */
const serve = async (
  t: Test,
  gatewayOptions: GatewayStubOptions,
  protocol: Readonly<Record<string, unknown>>,
) => {
  const api = await startKubeApi()
  const gateway = await startGatewayStub(gatewayOptions)
  const { caFile, tokenFile } = await api.files(directory)
  const config = {
    listen: { workers: '127.0.0.1:0', admin: '127.0.0.1:0' },
    gateway: { url: gateway.url, ...protocol },
    kubernetes: { apiServer: api.url, caFile, tokenFile },
    k8sTrust: { allowedIdentities: [{ namespace: 'openclaw', serviceAccount: 'openclaw-worker' }] },
  }
  const file = join(directory, 'config.json')
  writeFileSync(file, JSON.stringify(config))
  const sidecar = startSidecarProcess(['serve', '--config', file], { main })
  t.teardown(async () => {
    sidecar.signal('SIGKILL')
    await sidecar.exited
    await gateway.close()
    await api.stop()
  })
  const listening = await sidecar.listening()
  const ask = (path: string) => fetch(`http://${listening.admin}${path}`)
  await waitForProcess('the sidecar', READY_MS_MAX, async () => (await ask('/readyz')).ok)
  return { api, ask, admin: listening.admin, url: `ws://${listening.workers}` }
}

test('the bundle asks the API server, lets a worker in and serves its metrics', async (t) => {
  const { api, ask, url } = await serve(t, {}, { protocol: 'stream' })
  const pod = api.createPod({
    namespace: 'openclaw',
    name: 'worker-a',
    serviceAccount: 'openclaw-worker',
    ips: ['127.0.0.11'],
    nodeName: 'node-1',
    phase: 'Running',
  })
  const token = api.mintToken({ pod, audiences: ['openclaw-gateway'] })
  const socket = await openWorker({ url, token, localAddress: '127.0.0.11' })
  socket.send('hello')
  t.equal((await nextMessage(socket)).text, 'hello')
  const metrics = await (await ask('/metrics')).text()
  t.match(metrics, /^openclaw_k8s_streams 1$/m)
  t.match(metrics, /^process_cpu_seconds_total /m)
  socket.terminate()
})

test('the bundle has the status page inside, and the command', async (t) => {
  const { ask, admin } = await serve(t, {}, { protocol: 'stream' })
  for (const [path, { type, text }] of Object.entries(PAGE)) {
    const answer = await ask(path)
    t.equal(answer.headers.get('content-type'), type)
    t.equal(await answer.text(), text, path)
  }
  const args = ['--config', join(directory, 'config.json'), '--set', `listen.admin=${admin}`]
  const { exited, stdout } = startSidecarProcess(['status', ...args], { main })
  t.strictSame(await exited, { code: 0, signal: null })
  t.match(stdout.text, /^READY {2}auth-sidecar \d[^]*^STREAMS {2}none/m)
})

test('the bundle connects a worker from its own pod, and answers its probe', async (t) => {
  const gateway = await startGatewayStub()
  const tokenFile = join(directory, 'worker-token')
  writeFileSync(tokenFile, 'the.current.token')
  const args = ['--gateway', gateway.url, '--listen', '127.0.0.1:0', '--token-file', tokenFile]
  const connect = startSidecarProcess(['connect', ...args], { main })
  t.teardown(async () => {
    connect.signal('SIGKILL')
    await connect.exited
    await gateway.close()
  })
  const { listen } = await connect.stderr.wait(({ msg }) => msg === 'listening')
  const check = ['connect', '--check', '--listen', String(listen)]
  t.strictSame(await startSidecarProcess(check, { main }).exited, { code: 0, signal: null })
  const socket = await openWorker({ url: `ws://${String(listen)}`, carrier: 'none' })
  socket.send('hello')
  t.equal((await nextMessage(socket)).text, 'hello')
  t.equal(gateway.handshakes[0]?.headers['x-openclaw-sa-token'], 'the.current.token')
  socket.terminate()
})

test('the bundle speaks to the gateway as its operator', async (t) => {
  writeFileSync(join(directory, 'secret'), SECRET)
  writeFileSync(join(directory, 'seed'), 'a-seed-of-more-than-sixteen-bytes')
  // It is not ready before the operator channel is up.
  const { ask } = await serve(t, createPairedDevices(SECRET).gateway, {
    protocol: 'openclaw',
    auth: { mode: 'token', secretFile: join(directory, 'secret') },
    deviceSeedFile: join(directory, 'seed'),
  })
  t.equal((await ask('/readyz')).status, 200)
})

test('with the options of its image the bundle runs, and SIGUSR1 opens no debugger', async (t) => {
  const options = /NODE_OPTIONS="([^"]*)"/.exec(readFileSync(DOCKERFILE, 'utf8'))?.[1] ?? ''
  t.match(options, /--max-semi-space-size=4/)
  // Any command, and before it has started: `serve` listens for the signal itself.
  const signal = "--import=data:text/javascript,process.kill(process.pid,'SIGUSR1')"
  const env = { NODE_OPTIONS: `${options} ${signal}` }
  const { exited, stdout, stderr } = startSidecarProcess(['version'], { main, env })
  t.strictSame(await exited, { code: 0, signal: null })
  t.match(stdout.text, /^\d/)
  t.equal(stderr.text, '')
})

test('the bundle contains neither the packages left out nor all of undici', async (t) => {
  const licenses = readFileSync(join(directory, 'THIRD_PARTY_LICENSES'), 'utf8')
  const carried = [...licenses.matchAll(/^(\S+) \S+ \(.+\)$/gm)].map(([, name]) => name)
  for (const name of ['undici', 'fastify', 'prom-client', 'pino'])
    t.ok(carried.includes(name), name)
  for (const name of ['ajv', 'light-my-request', 'semver', '@opentelemetry/api', 'thread-stream']) {
    t.notOk(carried.includes(name), name)
  }
  const parts: readonly string[] = program.match(/undici\/lib\/\w+/g) ?? []
  t.ok(parts.includes('undici/lib/dispatcher'))
  for (const name of ['mock', 'cache', 'interceptor']) {
    t.notOk(parts.includes(`undici/lib/${name}`), name)
  }
})

test('the bundle is plain ASCII: V8 would keep other text in twice the memory', async (t) => {
  t.equal(/[\u0080-\u00ff]/.exec(program), null)
})

test('the sidecar gives back what only its start needed', async (t) => {
  const { ask } = await serve(t, {}, { protocol: 'stream' })
  const metrics = await (await ask('/metrics')).text()
  const [, size] = /^nodejs_heap_space_size_total_bytes\{space="new"\} (\S+)$/m.exec(metrics) ?? []
  t.ok(Number(size) <= YOUNG_GENERATION_BYTES_MAX, `${size} bytes`)
})
