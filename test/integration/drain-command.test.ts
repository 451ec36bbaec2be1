/** The `drain` command makes the running sidecar send its workers away and stay up; nobody else can ask for that. */

import { writeFileSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { createServer, request, type RequestListener } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { test, type Test } from 'tap'
import { run as drain } from '@openclaw-k8s/auth-sidecar/commands/drain.ts'
import { PROOF_HEADER, proveDrain } from '@openclaw-k8s/auth-sidecar/edge/drain-proof.ts'
import type { Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { startServeRig } from '../kit/serve-rig.ts'
import { startSidecarProcess } from '../kit/sidecar-process.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { rawUpgrade } from '../kit/raw-upgrade.ts'
import { startRig, type Rig, type RigOptions } from '../kit/rig.ts'
import { runCommand } from '../kit/run-command.ts'
import { waitUntil } from '../kit/wait.ts'
import { closed, nextMessage } from '../kit/worker-client.ts'

const WINDOW_MS = 20_000
const WORKERS =
  'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker}]'

const drainingRig = async (t: Test, options: RigOptions = {}) => {
  const clock = new FakeClock()
  const set = ['drain.window=20s', 'limits.streamsPerPod=100', ...(options.set ?? [])]
  const rig = await startRig({ ...options, clock, set })
  t.teardown(() => rig.stop())
  const token = rig.mint({ pod: rig.createPod() })
  const open = async () => {
    const worker = await rig.connect({ token })
    if (!worker.ok) throw new Error('refused')
    return worker.socket
  }
  return { clock, rig, token, open }
}

/** What the container's configuration would say. */
const settingsOf = (rig: Rig): readonly string[] => [
  `listen.admin=${new URL(rig.adminUrl).host}`,
  `kubernetes.apiServer=${rig.api.url}`,
  `kubernetes.tokenFile=${rig.tokenFile}`,
  WORKERS,
]

/** The command on the sidecar's machine: both have the same time. */
const drainBy = (rig: Rig, clock: Clock, set: readonly string[] = []) =>
  runCommand(drain, { set: [...settingsOf(rig), ...set], clock })

/** A proof nobody has used, made with the sidecar's own token unless told otherwise. */
const proofFor = async (rig: Rig, clock: Pick<Clock, 'now'>, token?: string): Promise<string> =>
  proveDrain(token ?? (await rig.readFile(rig.tokenFile)).trim(), {
    nowMs: clock.now(),
    nonce: randomBytes(16).toString('base64url'),
  })

/** Resolves when the sidecar has received the request, and has done everything it does at once. */
const asked = async (rig: Rig, times = 1): Promise<void> => {
  const count = () => rig.log.filter((line) => line.includes('drain requested')).length
  await waitUntil(() => count() >= times)
}

type Post = {
  readonly proof?: string
  readonly localAddress?: string
  readonly method?: string
}

/** A hand-made call, from any loopback address. */
const call = async (adminUrl: string, { proof, localAddress, method = 'POST' }: Post) => {
  const sent = request(`${adminUrl}/drain`, {
    method,
    agent: false,
    ...(localAddress === undefined ? {} : { localAddress }),
    headers: proof === undefined ? {} : { [PROOF_HEADER]: proof },
  })
  const [response] = await once(sent.end(), 'response')
  const text = (await response.toArray()).join('')
  return { status: Number(response.statusCode), text }
}

test('the command answers when the last stream is gone, and the process stays up and refuses', async (t) => {
  const { clock, rig, token, open } = await drainingRig(t)
  const sockets = [await open(), await open()]
  let isOver = false
  const outcome = drainBy(rig, clock).finally(() => (isOver = true))
  await asked(rig)
  await clock.advanceAsync(0)
  t.same(await closed(sockets[0]!), { code: 1012, reason: 'draining' })
  sockets[1]!.send('still here')
  t.equal((await nextMessage(sockets[1]!)).text, 'still here', 'the others have their time')
  t.notOk(isOver)
  await clock.advanceAsync(WINDOW_MS / 2)
  t.same(await closed(sockets[1]!), { code: 1012, reason: 'draining' })
  t.same(await outcome, { exitCode: 0, stdout: 'drained: 2 streams closed\n', stderr: '' })

  await clock.advanceAsync(10 * WINDOW_MS)
  t.equal((await fetch(`${rig.adminUrl}/livez`)).status, 200, 'no reason to restart it')
  const ready = await fetch(`${rig.adminUrl}/readyz`)
  t.equal(ready.status, 503)
  t.match(await ready.text(), '[-] serving: draining\n')
  t.match(await rig.connect({ token }), {
    ok: false,
    status: 503,
    body: { error: { type: 'draining' } },
  })
})

test('a signal after a drain stops at once, without a second window', async (t) => {
  const { clock, rig, open } = await drainingRig(t)
  await open()
  const outcome = drainBy(rig, clock)
  await asked(rig)
  await clock.advanceAsync(0)
  t.match(await outcome, { exitCode: 0, stdout: 'drained: 1 stream closed\n' })
  // The clock stands still from here on.
  await rig.sidecar.drain()
  await t.rejects(fetch(`${rig.adminUrl}/livez`))
  await t.rejects(rawUpgrade({ port: rig.port }), { code: 'ECONNREFUSED' })
})

test('a signal joins a drain under way, and the command still gets its answer', async (t) => {
  const { clock, rig, open } = await drainingRig(t)
  const sockets = [await open(), await open()]
  const outcome = drainBy(rig, clock)
  await asked(rig)
  await clock.advanceAsync(WINDOW_MS / 4)
  const stopped = rig.sidecar.drain()
  await clock.advanceAsync(WINDOW_MS / 4)
  await Promise.all(sockets.map(closed))
  await stopped
  t.match(await outcome, { exitCode: 0, stdout: 'drained: 2 streams closed\n' })
  await t.rejects(fetch(`${rig.adminUrl}/livez`))
})

test('a command joins the drain of a signal', async (t) => {
  const { clock, rig, open } = await drainingRig(t)
  const sockets = [await open(), await open()]
  const stopped = rig.sidecar.drain()
  await clock.advanceAsync(WINDOW_MS / 4)
  const outcome = drainBy(rig, clock)
  await asked(rig)
  await clock.advanceAsync(WINDOW_MS / 4)
  await Promise.all(sockets.map(closed))
  await stopped
  t.match(await outcome, { exitCode: 0, stdout: 'drained: 2 streams closed\n' })
})

test('a second command joins the first, and a later one learns what that did', async (t) => {
  const { clock, rig, open } = await drainingRig(t)
  const sockets = [await open(), await open()]
  const first = drainBy(rig, clock)
  await asked(rig, 1)
  await clock.advanceAsync(WINDOW_MS / 4)
  const second = drainBy(rig, clock)
  await asked(rig, 2)
  await clock.advanceAsync(WINDOW_MS / 4)
  await Promise.all(sockets.map(closed))
  const same = { exitCode: 0, stdout: 'drained: 2 streams closed\n', stderr: '' }
  t.same(await Promise.all([first, second]), [same, same])
  t.same(await drainBy(rig, clock), same)
  const begun = rig.log.filter((line) => line.includes('"msg":"draining"'))
  t.equal(begun.length, 1)
})

test('a command that is killed does not end the drain', async (t) => {
  const { clock, rig, open } = await drainingRig(t)
  const sockets = [await open(), await open()]
  const sent = request(`${rig.adminUrl}/drain`, {
    method: 'POST',
    headers: { [PROOF_HEADER]: await proofFor(rig, clock) },
  })
  sent.on('error', () => {}).end()
  await asked(rig)
  sent.destroy()
  await clock.advanceAsync(WINDOW_MS / 2)
  for (const socket of sockets) t.same(await closed(socket), { code: 1012, reason: 'draining' })
})

test('with a window of 0s all streams are closed at once, each with its close frame', async (t) => {
  const streams = 200
  const { clock, rig, open } = await drainingRig(t, {
    set: [
      'drain.window=0s',
      `limits.streamsPerPod=${streams}`,
      `limits.pendingPerAddress=${streams}`,
    ],
  })
  const sockets = await Promise.all(Array.from({ length: streams }, open))
  const ends = Promise.all(sockets.map(closed))
  const outcome = drainBy(rig, clock, ['drain.window=0s'])
  await asked(rig)
  await clock.advanceAsync(100)
  t.ok((await ends).every(({ code, reason }) => code === 1012 && reason === 'draining'))
  t.match(await outcome, { exitCode: 0, stdout: `drained: ${streams} streams closed\n` })
})

test('a worker that answers nothing holds the command up for no longer than the grace', async (t) => {
  const { clock, rig, open } = await drainingRig(t)
  const socket = await open()
  rig.gateway.connections.forEach((connection) => connection.pause())
  socket.pause()
  const outcome = drainBy(rig, clock)
  await asked(rig)
  await clock.advanceAsync(WINDOW_MS + 5000)
  t.match(await outcome, { exitCode: 0, stdout: 'drained: 1 stream closed\n' })
  socket.terminate()
})

test("only this sidecar's own command can ask for a drain", async (t) => {
  const { clock, rig, open } = await drainingRig(t, {
    isLocalAddress: (address) => address === '127.0.0.1',
  })
  const socket = await open()
  const { adminUrl } = rig
  const proof = await proofFor(rig, clock)
  const worker = rig.mint({ pod: rig.createPod('worker-b', '127.0.0.12') })
  const refused: readonly (readonly [who: string, how: Post])[] = [
    ['another pod, even with the proof', { proof, localAddress: '127.0.0.11' }],
    ['a page in the browser of who forwards the port, or a stranger through a mesh', {}],
    ['who guesses', { proof: `${proof.slice(0, -2)}${proof.endsWith('AA') ? 'BA' : 'AA'}` }],
    ['who tries a short proof', { proof: 'a' }],
    ['who tries an empty key', { proof: await proofFor(rig, clock, '') }],
    ['a worker with a token of its own', { proof: await proofFor(rig, clock, worker) }],
  ]
  for (const [who, how] of refused) {
    const { status, text } = await call(adminUrl, how)
    t.equal(status, 403, who)
    t.match(text, /in the sidecar's container: run auth-sidecar drain\.\n$/)
  }
  for (const method of ['GET', 'PUT', 'DELETE']) {
    t.equal((await call(adminUrl, { proof, method })).status, 404, method)
  }
  t.equal((await fetch(`${adminUrl}/readyz`)).status, 200, 'nothing of it began a drain')
  socket.send('still here')
  t.equal((await nextMessage(socket)).text, 'still here')
})

test("an admin port on the pod's address accepts a drain from that address", async (t) => {
  const { clock, rig } = await drainingRig(t, {
    set: ['listen.admin=127.0.0.9:0'],
    isLocalAddress: () => false,
  })
  const proof = await proofFor(rig, clock)
  t.equal((await call(rig.adminUrl, { proof, localAddress: '127.0.0.8' })).status, 403)
  t.equal((await call(rig.adminUrl, { proof, localAddress: '127.0.0.9' })).status, 200)
})

test('a sidecar without its own token drains for nobody', async (t) => {
  const { clock, rig } = await drainingRig(t, {
    set: ['kubernetes.tokenFile=absent'],
  })
  t.equal((await call(rig.adminUrl, { proof: await proofFor(rig, clock, '') })).status, 403)
})

test('a proof is valid once, and only for as long as a request takes', async (t) => {
  const { clock, rig } = await drainingRig(t)
  const ask = async (proof: string) => (await call(rig.adminUrl, { proof })).status
  const late = await proofFor(rig, clock)
  await clock.advanceAsync(10_001)
  t.equal(await ask(late), 403, 'too old')
  const early = await proofFor(rig, new FakeClock(clock.now() + 10_001))
  t.equal(await ask(early), 403, 'not of this time')
  t.equal((await fetch(`${rig.adminUrl}/readyz`)).status, 200, 'neither began a drain')

  const proof = await proofFor(rig, clock)
  const [madeAt, nonce, mac] = proof.split('.')
  for (const forged of [
    `${clock.now() + 1}.${nonce}.${mac}`,
    `${madeAt}.${nonce?.slice(1)}A.${mac}`,
    `${madeAt}.${nonce}`,
    `${madeAt}.${nonce}.${mac}.`,
    `${madeAt}.${nonce}.${mac}=`,
    `0${proof}`,
    ` ${mac}`,
  ]) {
    t.equal(await ask(forged), 403, forged)
  }
  t.equal(await ask(proof), 200)
  t.equal(await ask(proof), 403, 'a replay')
  t.equal(await ask(await proofFor(rig, clock)), 200, 'another joins')
})

test('a flood of wrong proofs does not make the sidecar read its token again and again', async (t) => {
  const read: string[] = []
  const { clock, rig } = await drainingRig(t, { onReadFile: (path) => void read.push(path) })
  const countReads = () => read.filter((path) => path === rig.tokenFile).length
  const flood = async () => {
    const before = countReads()
    for (let round = 0; round < 50; round += 1) {
      const proof = await proofFor(rig, clock, 'wrong')
      t.equal((await call(rig.adminUrl, { proof })).status, 403)
    }
    return countReads() - before
  }
  t.equal(await flood(), 5, 'a burst')
  await clock.advanceAsync(1000)
  t.equal(await flood(), 1, 'one a second')
})

test('a token that was rotated a moment ago is still valid', async (t) => {
  const { clock, rig } = await drainingRig(t)
  await fetch(`${rig.adminUrl}/readyz`)
  writeFileSync(rig.tokenFile, rig.api.sidecarToken())
  t.match(await drainBy(rig, clock), { exitCode: 0, stdout: 'drained: 0 streams closed\n' })
})

test('an invalid command line or configuration exits 64 or 78 and says why', async (t) => {
  const bad = (options: Parameters<typeof runCommand>[1]) => runCommand(drain, options)
  t.match(await bad({ argv: ['now'] }), { exitCode: 64, stderr: /\nUsage: auth-sidecar drain / })
  t.match(await bad({ argv: ['--config', 'absent.yaml'] }), { exitCode: 78, stderr: /not exist/ })
  const common = ['kubernetes.apiServer=https://127.0.0.1:1', WORKERS]
  t.match(await bad({ set: [...common, 'listen.admin=127.0.0.1:0'] }), {
    exitCode: 78,
    stderr: /listen\.admin: The port is 0/,
  })
  t.match(await bad({ set: [...common, 'kubernetes.tokenFile=absent'] }), {
    exitCode: 78,
    stderr:
      /kubernetes\.tokenFile \(absent\): The file does not exist\.\n {4}Hint: Run this in the/,
  })
  t.match(await bad({ set: [WORKERS] }), {
    exitCode: 78,
    stderr: /kubernetes\.apiServer is not set/,
  })
})

test('a configuration that was broken since the start keeps no pod from being drained', async (t) => {
  const { clock, rig } = await drainingRig(t)
  const file = `${t.testdir()}/config.yaml`
  const [admin, api] = [new URL(rig.adminUrl).host, rig.api.url]
  const ours = `listen: { admin: '${admin}' }
kubernetes: { apiServer: '${api}', tokenFile: '${rig.tokenFile}', issuers: 7 }
drain: { window: 20s }
`
  for (const broken of ['', 'k8sTrust: { allowedIdentities: [] }\n', 'gateway: [\n', 'a: b: c\n']) {
    writeFileSync(file, ours + broken)
    const outcome = await runCommand(drain, { argv: ['--config', file], clock })
    t.match(outcome, { exitCode: 0, stdout: 'drained: 0 streams closed\n' }, broken)
    t.match(
      outcome.stderr,
      /^The configuration has .*\n[^]*\nThe running sidecar is called all the same/,
    )
  }
})

/** A command that dials this server instead of a sidecar. */
const drainAt = async (t: Test, listener: RequestListener, clock = new FakeClock()) => {
  const server = createServer(listener)
  t.teardown(() => server.close().closeAllConnections())
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const tokenFile = `${t.testdir({ token: 'own-token' })}/token`
  return runCommand(drain, {
    clock,
    set: [
      `listen.admin=0.0.0.0:${port}`,
      'kubernetes.apiServer=https://127.0.0.1:1',
      `kubernetes.tokenFile=${tokenFile}`,
      'drain.window=3s',
      WORKERS,
    ],
  })
}

test('if no sidecar answers, the command exits 69 and says what it found', async (t) => {
  const { clock, rig } = await drainingRig(t)
  await rig.sidecar.stop()
  const nobody = await drainBy(rig, clock)
  t.match(nobody, { exitCode: 69, stdout: '' })
  t.match(nobody.stderr, /^Not drained: http:\/\/127\.0\.0\.1:\d+: .*ECONNREFUSED/)
  t.match(await drainAt(t, (_request, response) => response.writeHead(404).end('no such page')), {
    exitCode: 69,
    stderr: /it answered 404: no such page\n$/,
  })
  const endless = await drainAt(t, (_request, response) => response.end('x'.repeat(100_000)))
  t.match(endless, { exitCode: 69, stderr: /the answer is too long\n$/ })
  for (const body of ['hello', '{}', 'null']) {
    t.match(await drainAt(t, (_request, response) => response.end(body)), {
      exitCode: 69,
      stderr: /the server there is not the sidecar\n$/,
    })
  }
})

test('a truncated answer is reported as such, after a reset or an end', async (t) => {
  for (const end of ['resetAndDestroy', 'destroy'] as const) {
    const outcome = await drainAt(t, (_request, response) => {
      response.writeHead(200, { 'content-length': '100' }).write('{"streams":')
      setImmediate(() => response.socket?.[end]())
    })
    t.match(outcome, { exitCode: 69, stdout: '', stderr: /aborted|ECONNRESET|terminated/ }, end)
  }
})

test('an answer that does not come or does not end is waited for a little longer than the window', async (t) => {
  const silences: readonly RequestListener[] = [
    () => {},
    (_request, response) => void response.writeHead(200).write('{"streams":'),
  ]
  for (const silence of silences) {
    const clock = new FakeClock()
    const { promise, resolve } = Promise.withResolvers<undefined>()
    const listener: RequestListener = (request_, response) => {
      silence(request_, response)
      resolve(undefined)
    }
    const outcome = drainAt(t, listener, clock)
    await promise
    let isOver = false
    void outcome.then(() => (isOver = true))
    await clock.advanceAsync(12_999)
    t.notOk(isOver)
    await clock.advanceAsync(1)
    t.match(await outcome, { exitCode: 69, stderr: /no answer within 13000 ms\n$/ })
  }
})

test('in a real process: drained by the command, alive until SIGTERM, then gone at once', async (t) => {
  const rig = await startServeRig({ workers: 0, admin: 0, set: ['drain.window=1m'] })
  t.teardown(() => rig.close())
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const worker = await rig.connect('127.0.0.11', rig.mint({ pod }))
  if (!worker.ok) throw new Error(`refused with ${worker.status}`)
  const command = startSidecarProcess([
    'drain',
    `--config=${rig.configFile}`,
    `--set=listen.admin=${new URL(rig.adminUrl).host}`,
  ])
  t.match(await closed(worker.socket), { code: 1012, reason: 'draining' })
  t.strictSame(await command.exited, { code: 0, signal: null })
  t.equal(command.stdout.text, 'drained: 1 stream closed\n')
  t.equal(command.stderr.text, '')
  t.equal((await fetch(`${rig.adminUrl}/livez`)).status, 200)
  t.match(await (await fetch(`${rig.adminUrl}/readyz`)).text(), '[-] serving: draining')
  const { sidecar } = rig
  sidecar.signal('SIGTERM')
  t.strictSame(await sidecar.exited, { code: 0, signal: null })
  const told = sidecar.stderr.records.map(({ msg }) => msg)
  t.ok(told.some((msg) => String(msg).startsWith('drain requested: ')))
  t.equal(told.filter((msg) => msg === 'draining').length, 1, 'no second window')
  t.equal(sidecar.stdout.records.at(-1)?.['code'], 'draining', 'the audit is whole')
})
