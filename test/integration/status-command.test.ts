/** The `status` command shows what its sidecar says, once or as it changes. */

import { writeFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { run as status } from '@openclaw-k8s/auth-sidecar/commands/status.ts'
import { systemClock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { explainNoStatus } from '@openclaw-k8s/auth-sidecar/edge/admin-call.ts'
import type { Status } from '@openclaw-k8s/auth-sidecar/edge/status.ts'
import { startAdminRig } from '../kit/admin-rig.ts'
import { startRig } from '../kit/rig.ts'
import { runCommand } from '../kit/run-command.ts'
import { EMPTY_STATUS, READY_STATUS, withNames } from '../kit/status-sample.ts'
import { startServeRig } from '../kit/serve-rig.ts'
import { startSidecarProcess } from '../kit/sidecar-process.ts'
import { waitForProcess } from '../kit/wait.ts'

const FRAMES_MS_MAX = 20_000
const WORKERS =
  'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker}]'

const settingsFor = (url: string): readonly string[] => [
  `listen.admin=${new URL(url).host}`,
  WORKERS,
]

const statusAt = (url: string, ...argv: string[]) =>
  runCommand(status, { set: settingsFor(url), argv })

test('it shows the streams and refusals of the sidecar', async (t) => {
  const rig = await startRig()
  t.teardown(() => rig.stop())
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const worker = await rig.connect({ token: rig.mint({ pod }) })
  if (!worker.ok) throw new Error('refused')
  await rig.connect({ token: rig.mint({ pod, audiences: ['another'] }) })
  const { exitCode, stdout, stderr } = await statusAt(rig.adminUrl)
  t.equal(exitCode, 0, stderr)
  t.match(stdout, /^STREAMS {2}1 open, of 1 pod/m)
  t.match(stdout, /^openclaw\/worker-a +openclaw-worker +node-1 /m)
  t.match(stdout, /audience_mismatch +\?openclaw\/worker-a +127\.0\.0\.11$/m)
  const json = await statusAt(rig.adminUrl, '--json')
  t.match(JSON.parse(json.stdout), { streams: { open: 1 }, version: 'test' })
  t.equal(json.stdout.indexOf('\n'), json.stdout.length - 1, 'one line')
  worker.socket.terminate()
})

/** A terminal, or a pipe, that is closed after some writes. */
const watchAt = async (
  url: string,
  { writesMax, isTerminal, argv = [] }: { writesMax: number; isTerminal: boolean; argv?: string[] },
  onWrite: (writes: readonly string[]) => void,
) => {
  const writes: string[] = []
  const errors: string[] = []
  const exitCode = await status({
    argv: ['--watch', ...argv, ...settingsFor(url).flatMap((each) => ['--set', each])],
    env: {},
    stdout: {
      write: (text) => {
        writes.push(text)
        onWrite(writes)
      },
      get isBroken() {
        return writes.length >= writesMax
      },
    },
    stderr: { write: (text) => errors.push(text) },
    readFile: () => '',
    clock: systemClock,
    interfaces: () => ({}),
    ...(isTerminal ? { terminal: () => ({ rows: 12, columns: 100 }) } : {}),
  })
  return { exitCode, writes, errors: errors.join('') }
}

test('with --watch it redraws in place, cut to the height of the terminal', async (t) => {
  let shown: Status = READY_STATUS
  const rig = await startAdminRig({ status: { read: async () => shown, objection: undefined } })
  t.teardown(() => rig.close())
  const { exitCode, writes } = await watchAt(rig.url, { writesMax: 2, isTerminal: true }, () => {
    shown = withNames('worker-z')
    rig.clock.advance(1000)
    setImmediate(() => rig.clock.advance(1000))
  })
  t.equal(exitCode, 0, 'its reader has left')
  const [first = '', second = ''] = writes
  for (const frame of [first, second]) {
    t.ok(frame.startsWith('\u001b[H'))
    t.ok(frame.endsWith('\u001b[J'))
    t.equal(frame.split('\n').length - 1, 11)
    t.match(frame, /and \d+ lines more/)
  }
  t.match(first, 'READY')
  t.match(second, 'worker-z')
})

test('into a pipe --watch draws nothing, and --json is a line for each event', async (t) => {
  const rig = await startAdminRig()
  t.teardown(() => rig.close())
  const next = () => void setImmediate(() => rig.clock.advance(1000))
  const plain = await watchAt(rig.url, { writesMax: 2, isTerminal: false }, next)
  t.notMatch(plain.writes.join(''), '\u001b')
  const json = await watchAt(rig.url, { writesMax: 2, isTerminal: true, argv: ['--json'] }, next)
  t.strictSame(
    json.writes.slice(0, 2).map((line) => JSON.parse(line) as unknown),
    [EMPTY_STATUS, EMPTY_STATUS],
  )
})

const serve = async (t: Test, listener: RequestListener): Promise<string> => {
  const server = createServer(listener)
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

test('without a sidecar that shows its status it says why, and exits 69', async (t) => {
  const off = await startAdminRig({
    status: { read: async () => EMPTY_STATUS, objection: 'the status is off on the host network' },
  })
  t.teardown(() => off.close())
  const full = await startAdminRig({ connectionsMax: 3 })
  t.teardown(() => full.close())
  const cases = [
    [off.url, [], /it answered 404: the status is off on the host network/],
    [off.url, ['--watch'], /it answered 404: the status is off on the host network/],
    [full.url, ['--watch'], /it answered 503: at most 0 can watch at once/],
    ['http://127.0.0.1:1', [], /ECONNREFUSED/],
    ['http://127.0.0.1:1', ['--watch'], /ECONNREFUSED/],
    [await serve(t, (_, response) => response.end('{}')), [], /is not the sidecar/],
    [await serve(t, (_, response) => response.end('null')), [], /is not the sidecar/],
    [await serve(t, (_, response) => response.end('\u001b[2J')), [], /is not the sidecar/],
    [await serve(t, (_, response) => response.end('x'.repeat(2e6))), [], /too long/],
    [await serve(t, (_, response) => response.end('x'.repeat(2e6))), ['--watch'], /too long/],
    [
      await serve(t, (_, response) => response.end('data: {}\n\n')),
      ['--watch'],
      /is not the sidecar/,
    ],
    [await serve(t, (_, response) => response.end()), ['--watch'], /has closed the connection/],
    [
      await serve(t, (_, response) => void response.writeHead(404).end('\u001b[2J')),
      [],
      /it answered 404: \\u\{1b\}\[2J/,
    ],
  ] as const
  for (const [url, argv, pattern] of cases) {
    const { exitCode, stdout, stderr } = await statusAt(url, ...argv)
    t.match(stderr, pattern)
    t.match(stderr, /^No status: http:/)
    t.strictSame({ exitCode, stdout }, { exitCode: 69, stdout: '' }, String(pattern))
  }
  const noPort = await runCommand(status, { set: ['listen.admin=127.0.0.1:0', WORKERS] })
  t.match(noPort, { exitCode: 78, stderr: /listen\.admin/ })
})

test('an admin port on the address of the pod shows no status, and the reason is told', async (t) => {
  const absent = { status: 404, text: '{"message":"Route GET:/status not found"}' }
  const why = (origin: string) => explainNoStatus(origin, absent)
  const told = (host: string) =>
    `the status is shown on loopback only, and listen.admin is ${host}: set it to [::]:9464`
  t.equal(why('http://10.0.0.5:9464'), told('10.0.0.5'))
  t.equal(why('http://[fd00::5]:9464'), told('[fd00::5]'))
  for (const local of ['localhost', '127.0.0.1', '[::1]']) {
    t.match(why(`http://${local}:9464`), /^it answered 404: /)
  }
  t.match(explainNoStatus('http://10.0.0.5:9464', { status: 503, text: 'full' }), /503: full/)
})

test('a configuration that was broken since the start does not hide the status', async (t) => {
  const rig = await startAdminRig()
  t.teardown(() => rig.close())
  const directory = t.testdir()
  const file = join(directory, 'config.yaml')
  const { host } = new URL(rig.url)
  const listen = `listen: { admin: '${host}' }`
  for (const [text, problem] of [
    [`${listen}\nk8sTrust: { allowedIdentities: [] }\n`, /must not be empty/],
    [`${listen}\nk8sTrust: { nonsense: 1 }\nlog: 7\n`, /nonsense/],
    [`${listen}\nk8sTrust:\n\t- tabs\n`, /Tabs are not allowed/],
    [`${listen}\n${listen}\n`, /used twice/],
    [`${listen}\n<<<<<<< HEAD\n`, /not valid YAML/],
  ] as const) {
    writeFileSync(file, text)
    const { exitCode, stdout, stderr } = await runCommand(status, { argv: ['--config', file] })
    t.equal(exitCode, 0, stderr)
    t.match(stdout, /^READY/)
    t.match(stderr, problem)
    t.ok(stderr.endsWith(`The running sidecar is called all the same, at ${rig.url}.\n`), stderr)
  }
  const { origin } = new URL(rig.url)
  const [set, env] = [`listen.admin=${host}`, { AUTH_SIDECAR_NONSENSE: '1' }]
  for (const argv of [[], ['--config', join(directory, 'absent.yaml')]]) {
    const outcome = await runCommand(status, { argv, set: [set], env })
    t.match(outcome, { exitCode: 0, stderr: `all the same, at ${origin}.` })
  }
  writeFileSync(file, 'listen: { admin: nonsense }\n')
  const fallback = await runCommand(status, { argv: ['--config', file] })
  t.match(fallback.stderr, /This is not an address[^]*all the same, at http:\/\/localhost:9464\.\n/)
})

test('in a real process it is printed, and a watch goes on until a signal', async (t) => {
  const rig = await startServeRig({ workers: 0, admin: 0 })
  t.teardown(() => rig.close())
  const args = [`--config=${rig.configFile}`, `--set=listen.admin=${new URL(rig.adminUrl).host}`]
  const printed = startSidecarProcess(['status', ...args])
  t.strictSame(await printed.exited, { code: 0, signal: null })
  t.match(printed.stdout.text, /^READY {2}auth-sidecar \d/)
  const watching = startSidecarProcess(['status', '--watch', ...args])
  await waitForProcess(
    'two frames',
    FRAMES_MS_MAX,
    () => watching.stdout.text.split('READY').length > 2,
  )
  watching.signal('SIGINT')
  t.strictSame(await watching.exited, { code: null, signal: 'SIGINT' })
  t.equal(watching.stderr.text, '')
})
