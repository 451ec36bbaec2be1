/** The examples run as they stand: the gateway believes only the assertion, the workers come back. */

import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { decodeJwt, generateKeyPair, SignJWT, type JWK } from 'jose'
import { test, type Test } from 'tap'
import { parseAllDocuments } from 'yaml'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { preparePython, PYTHON_LIBRARIES } from '../kit/python-websockets.ts'
import { startRig } from '../kit/rig.ts'
import { closed, connectWorker, openWorker } from '../kit/worker-client.ts'

const run = promisify(execFile)

const STREAM = join(import.meta.dirname, '../../examples/stream')
const CACHE = join(import.meta.dirname, '../../.cache/examples')
const BUILD_MS_MAX = 120_000

type Program = {
  readonly child: ChildProcess
  /** The next line it prints; `undefined` once it has ended. */
  readonly nextLine: () => Promise<string | undefined>
}

type KubeObject = {
  readonly kind: string
  readonly metadata: { readonly name: string }
  readonly data?: Readonly<Record<string, string>>
  readonly spec?: { readonly template: { readonly spec: { readonly serviceAccountName?: string } } }
}

/** Starts a program of the examples, and ends it with the test. */
const start = (t: Test, command: readonly string[], env: Record<string, string>): Program => {
  const [file = '', ...args] = command
  const child = spawn(file, args, {
    cwd: STREAM,
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'close')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  return { child, nextLine: async () => (await lines.next()).value }
}

test('the example gateway lets in the identity of the assertion, and nobody without one', async (t) => {
  // The gateway starts before the sidecar whose keys it asks for.
  let jwksUrl = ''
  const forward = async (response: ServerResponse): Promise<void> => {
    response.end(await (await fetch(jwksUrl)).text())
  }
  const forwarder = createServer((_, response) => void forward(response))
  await once(forwarder.listen(0, '127.0.0.1'), 'listening')
  t.teardown(() => forwarder.close())
  const { port: jwksPort } = forwarder.address() as AddressInfo
  const gateway = start(t, [process.execPath, 'gateway.ts'], {
    PORT: '0',
    JWKS_URL: `http://127.0.0.1:${jwksPort}/`,
  })
  const { port } = JSON.parse(/\{.*\}/.exec((await gateway.nextLine()) ?? '')?.[0] ?? '') as {
    readonly port: number
  }
  const gatewayUrl = `ws://127.0.0.1:${port}`
  const rig = await startRig({ set: [`gateway.url=${gatewayUrl}`] })
  t.teardown(() => rig.stop())
  jwksUrl = `${rig.adminUrl}/.well-known/jwks.json`

  const worker = await openWorker({
    url: rig.url,
    token: rig.mint({ pod: rig.createPod() }),
    localAddress: '127.0.0.11',
  })
  const expected = 'connected: system:serviceaccount:openclaw:openclaw-worker in pod worker-a'
  t.equal(await gateway.nextLine(), expected)

  const { keys } = (await (await fetch(jwksUrl)).json()) as { readonly keys: readonly JWK[] }
  const { privateKey } = await generateKeyPair('EdDSA')
  const forged = await new SignJWT({ 'kubernetes.io': { pod: { name: 'worker-a' } } })
    .setProtectedHeader({ alg: 'EdDSA', kid: keys[0]?.kid ?? '' })
    .setIssuer('openclaw-auth-sidecar')
    .setAudience('openclaw-gateway')
    .setSubject('system:serviceaccount:openclaw:openclaw-worker')
    .setExpirationTime('1m')
    .sign(privateKey)
  for (const [name, headers] of [
    ['no assertion', {}],
    ['one signed by somebody else', { 'x-openclaw-k8s-assertion': forged }],
  ] as const) {
    t.match(await connectWorker({ url: gatewayUrl, headers }), { ok: false, status: 401 }, name)
    t.match(await gateway.nextLine(), /^refused: /, name)
  }

  gateway.child.kill('SIGTERM')
  t.strictSame(await closed(worker), { code: 1012, reason: 'restart' })
})

test("the example's manifests put the sidecar before a gateway that needs no secret", async (t) => {
  let text: string
  try {
    text = (await run('kubectl', ['kustomize', join(STREAM, 'kubernetes')])).stdout
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return t.plan(0, 'there is no kubectl')
  }
  t.notMatch(text, /openclaw-gateway-token|device-seed/)
  const objects = parseAllDocuments(text).map((document) => document.toJS() as KubeObject)
  const find = (kind: string, name: string) =>
    objects.find((object) => object.kind === kind && object.metadata.name === name)
  const gateway = find('Deployment', 'gateway')?.spec?.template.spec
  t.match(gateway, {
    initContainers: [{ name: 'auth-sidecar', restartPolicy: 'Always' }],
    containers: [{ name: 'gateway' }],
  })
  const written = find('ConfigMap', 'openclaw-auth-sidecar')?.data?.['config.yaml'] ?? ''
  const { config } = loadConfig({
    env: {},
    flags: [],
    file: 'config.yaml',
    readFile: () => written,
  })
  t.equal(config.gateway.protocol, 'stream')
  for (const { name } of WORKERS) {
    const worker = find('Deployment', `worker-${name.toLowerCase()}`)?.spec?.template.spec
    t.equal(worker?.serviceAccountName, 'openclaw-worker', name)
  }
  return undefined
})

/** Builds the Go worker without the network, or says why that is impossible. */
const buildGo = async (program: string): Promise<string | undefined> => {
  const cwd = join(STREAM, 'worker-go')
  const options = { cwd, timeout: BUILD_MS_MAX }
  try {
    await run('go', ['version'], options)
  } catch {
    return 'there is no go'
  }
  const env = { ...process.env, GOPROXY: 'off', GOTOOLCHAIN: 'local', CGO_ENABLED: '0' }
  try {
    // Without the module nothing is compiled; with it, whatever breaks the build fails the test.
    await run('go', ['list', '-deps', '.'], { ...options, env })
  } catch {
    return 'the Go module is not there: (cd examples/stream/worker-go && go mod download)'
  }
  await run('go', ['build', '-buildvcs=false', '-o', program, '.'], { ...options, env })
  return undefined
}

const go = join(CACHE, 'worker-go')
const WORKERS = [
  {
    name: 'Node',
    prepare: async () => undefined,
    command: [process.execPath, 'worker.ts'],
    env: {},
  },
  {
    name: 'Python',
    prepare: preparePython,
    command: ['python3', '-B', 'worker-python/worker.py'],
    env: { PYTHONPATH: PYTHON_LIBRARIES },
  },
  { name: 'Go', prepare: async () => buildGo(go), command: [go], env: {} },
]

for (const { name, prepare, command, env } of WORKERS) {
  test(`the worker in ${name} reads its token, reconnects, and stops when refused`, async (t) => {
    const obstacle = await prepare()
    if (obstacle !== undefined) return t.plan(0, obstacle)
    const rig = await startRig()
    t.teardown(() => rig.stop())
    const pod = rig.createPod('worker-a', '127.0.0.1')
    const [first, second] = [rig.mint({ pod }), rig.mint({ pod })]
    const tokenFile = join(t.testdir({ token: first }), 'token')
    // A client that used this proxy would show it the token. Nothing listens there.
    const proxy = 'http://127.0.0.1:9'
    const worker = start(t, command, {
      ...env,
      GATEWAY_URL: rig.url,
      TOKEN_FILE: tokenFile,
      BACKOFF_MS: '1',
      HTTP_PROXY: proxy,
      http_proxy: proxy,
    })
    const ended = once(worker.child, 'exit')
    t.equal(await worker.nextLine(), `received: hello from ${name}`)

    // The kubelet renews the token, and the gateway restarts.
    await writeFile(tokenFile, `${second}\n`)
    rig.gateway.setBehavior({ kind: 'close', code: 1013, reason: 'later' }, { connections: 1 })
    rig.gateway.setBehavior('refuse', { connections: 1 })
    ;(await rig.gateway.waitForConnection(1)).close(1012, 'restart')
    t.match(await worker.nextLine(), /^closed: .*1012.*restart/)
    t.match(await worker.nextLine(), /^closed: .*1013.*later/)
    t.match(await worker.nextLine(), /^closed: .*50[23]/)
    t.equal(await worker.nextLine(), `received: hello from ${name}`)
    const shown = rig.gateway.handshakes.map(
      ({ headers }) => headers['x-openclaw-k8s-credential-id'],
    )
    t.strictSame([shown[0], shown.at(-1)], [decodeJwt(first).jti, decodeJwt(second).jti])

    rig.api.deletePod('openclaw', 'worker-a')
    t.match(await worker.nextLine(), /^closed: .*1008.*pod_deleted/)
    t.equal(await worker.nextLine(), undefined, 'it does not try again')
    t.strictSame(await ended, [1, null])
    return undefined
  })
}
