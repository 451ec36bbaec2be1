/** The process itself: exit codes, signals, and what goes to which stream. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { version } from '@openclaw-k8s/auth-sidecar/version.ts'
import { startSidecarProcess } from '../kit/sidecar-process.ts'
import { startServeRig } from '../kit/serve-rig.ts'
import { closed } from '../kit/worker-client.ts'

const ANY_PORTS = { workers: 0, admin: 0 }

const runSidecar = async (...args: readonly string[]) => {
  const sidecar = startSidecarProcess(args)
  const exit = await sidecar.exited
  return { ...exit, stdout: sidecar.stdout.text, stderr: sidecar.stderr.text }
}

const startRig = async (t: Test, set: readonly string[] = []) => {
  const rig = await startServeRig({ ...ANY_PORTS, set })
  t.teardown(() => rig.close())
  return rig
}

const openStream = async (rig: Awaited<ReturnType<typeof startServeRig>>, name: string) => {
  const pod = rig.createPod(name, '127.0.0.11')
  const outcome = await rig.connect('127.0.0.11', rig.mint({ pod }))
  if (!outcome.ok) throw new Error(`refused with ${outcome.status}`)
  return outcome.socket
}

test('an invalid command line exits 64 and shows the usage', async (t) => {
  const cases: readonly [args: string[], stderr: RegExp][] = [
    [[], /^Usage: auth-sidecar <command>/],
    [['sevre'], /^Unknown command "sevre"\. Did you mean serve\?\nUsage: /],
    [['--config'], /^Unknown command "--config"\.\nUsage: /],
    [['serve', '--nonsense'], /"--nonsense"[^]*\nUsage: auth-sidecar serve /],
    [['serve', 'stray.yaml'], /\nUsage: auth-sidecar serve /],
    [['version', '--nonsense'], /^Unknown option "--nonsense"\.\nUsage: auth-sidecar version\n/],
  ]
  const outcomes = await Promise.all(cases.map(([args]) => runSidecar(...args)))
  for (const [index, { code, stdout, stderr }] of outcomes.entries()) {
    const [args, told] = cases[index]!
    t.equal(code, 64, `auth-sidecar ${args.join(' ')}`)
    t.equal(stdout, '')
    t.match(stderr, told)
  }
})

test('help on a command that does not exist is a mistake, with a suggestion', async (t) => {
  const typo = await runSidecar('help', 'servee')
  t.match(typo, {
    code: 64,
    stdout: '',
    stderr: /^Unknown command "servee"\. Did you mean serve\?\nUsage: /,
  })
  t.match(await runSidecar('help', 'zzz'), {
    code: 64,
    stderr: /^Unknown command "zzz"\.\nUsage: /,
  })
})

test('help and version go to stdout and exit 0', async (t) => {
  for (const args of [['--help'], ['-h'], ['help'], ['serve', '--help'], ['help', 'drain']]) {
    const help = await runSidecar(...args)
    const about = args.find((word) => /^(serve|drain)$/.test(word)) ?? '<command>'
    t.match(help, { code: 0, stdout: `Usage: auth-sidecar ${about}`, stderr: '' })
  }
  for (const args of [['version'], ['--version'], ['-v'], ['serve', '-v']]) {
    const told = await runSidecar(...args)
    t.match(told, { code: 0, stdout: `${version.version}\n`, stderr: '' })
  }
})

test('work still under way does not keep a finished command alive', async (t) => {
  const busy = '--import=data:text/javascript,setInterval(()=>{},1000)'
  const { stdout, exited } = startSidecarProcess(['version'], { env: { NODE_OPTIONS: busy } })
  t.strictSame(await exited, { code: 0, signal: null })
  t.equal(stdout.text, `${version.version}\n`)
})

test('an invalid configuration exits 78 with its path, the reason and a hint', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'auth-sidecar-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const file = join(directory, 'config.yaml')
  await writeFile(file, 'k8sTrust: { audience: [gateway], allowedIdentities: [] }\n')
  const [bad, absent] = await Promise.all([
    runSidecar('serve', '--config', file),
    runSidecar('serve', '--config', join(directory, 'absent.yaml')),
  ])
  t.match(bad, { code: 78, stdout: '' })
  t.match(bad.stderr, /k8sTrust\.audience \(.*config\.yaml:1:13\): This option does not exist\./)
  t.match(bad.stderr, /Hint: Did you mean audiences\?/)
  t.match(bad.stderr, /k8sTrust\.allowedIdentities .*: The list must not be empty/)
  t.match(absent, { code: 78, stdout: '', stderr: /absent\.yaml\): The file does not exist\./ })
})

test('a port that is taken exits 69 and names the port', async (t) => {
  const rig = await startRig(t)
  const taken = createServer().listen(0, '127.0.0.1')
  t.teardown(() => taken.close())
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo
  for (const listener of ['workers', 'admin']) {
    const other = listener === 'workers' ? 'admin' : 'workers'
    const places = [`listen.${listener}=127.0.0.1:${port}`, `listen.${other}=127.0.0.1:0`]
    const set = places.flatMap((place) => ['--set', place])
    const outcome = await runSidecar('serve', '--config', rig.configFile, ...set)
    const { code, stdout, stderr } = outcome
    t.equal(code, 69, `listen.${listener}`)
    t.equal(stdout, '')
    t.match(stderr, new RegExp(`EADDRINUSE[^\n]*:${port}`))
  }
})

test('SIGTERM sends the workers away with 1012, writes all audit lines and exits 0', async (t) => {
  const rig = await startRig(t)
  const { sidecar } = rig
  const socket = await openStream(rig, 'worker-a')
  const stranger = rig.createPod('stranger', '127.0.0.12', 'default')
  await rig.connect('127.0.0.12', rig.mint({ pod: stranger }))
  sidecar.signal('SIGTERM')
  t.match(await closed(socket), { code: 1012, reason: 'draining' })
  t.strictSame(await sidecar.exited, { code: 0, signal: null })

  const audit = sidecar.stdout.records
  t.equal(audit.length, sidecar.stdout.all.length, 'stdout is JSON lines alone')
  t.ok(
    audit.every(({ log }) => log === 'audit'),
    'stdout is the audit alone',
  )
  const decisions = audit.map(({ event, code }) => `${String(event)} ${String(code)}`).sort()
  t.strictSame(
    decisions,
    [
      // Still being collected when the signal came.
      'k8s-auth-failed identity_not_allowed',
      'k8s-auth-success undefined',
      'k8s-session-closed draining',
    ],
    'no decision is missing',
  )
  const log = sidecar.stderr.records
  t.equal(log.length, sidecar.stderr.all.length, 'stderr is JSON lines alone')
  t.ok(log.length > 0 && log.every((line) => line['log'] === 'sidecar'), 'stderr is the log alone')
})

test('SIGINT without a worker exits 0 as well', async (t) => {
  const { sidecar } = await startRig(t)
  sidecar.signal('SIGINT')
  t.strictSame(await sidecar.exited, { code: 0, signal: null })
})

test('a second SIGTERM cuts the drain short, and the audit still has whole lines', async (t) => {
  const rig = await startRig(t, ['drain.window=1m'])
  const { sidecar } = rig
  await openStream(rig, 'worker-a')
  await openStream(rig, 'worker-b')
  sidecar.signal('SIGTERM')
  // The second of two streams has half the window to go.
  await sidecar.stdout.wait(({ event }) => event === 'k8s-session-closed')
  sidecar.signal('SIGTERM')
  t.strictSame(await sidecar.exited, { code: 1, signal: null }, 'not reported as a clean end')
  t.equal(sidecar.stdout.records.length, sidecar.stdout.all.length)
  t.equal(sidecar.stdout.records.length, 3, 'two workers came, one was sent away')
})
