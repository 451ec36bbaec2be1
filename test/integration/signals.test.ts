/** Signals to a running sidecar: SIGHUP reloads at any time, and those of the user do nothing. */

import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { startSidecarProcess, type SidecarProcessOptions } from '../kit/sidecar-process.ts'
import { startServeRig } from '../kit/serve-rig.ts'

/** SIGHUP comes as soon as the sidecar listens for signals: long before anything is served. */
const SIGHUP_AT_ONCE = `--import=data:text/javascript,${encodeURIComponent(
  "process.on('newListener', (name) => name === 'SIGUSR1' && process.kill(process.pid, 'SIGHUP'))",
)}`

/** SIGTERM comes when the listener of the first moments, `end`, has just been removed. */
const SIGTERM_IN_THE_START = `--import=data:text/javascript,${encodeURIComponent(
  `process.on('removeListener', (name, { name: listener }) => {
    if (name === 'SIGTERM' && listener === 'end') process.kill(process.pid, 'SIGTERM')
  })`,
)}`

test('a SIGTERM in the middle of the start is not lost', async (t) => {
  const address = ['--set', 'listen.workers=127.0.0.1:0', '--set', 'listen.admin=127.0.0.1:0']
  const trust = 'k8sTrust.allowedIdentities=[{namespace: a, serviceAccount: b}]'
  const api = ['--set', 'kubernetes.apiServer=https://127.0.0.1:1', '--set', trust]
  const serve = ['serve', '--set', 'gateway.protocol=stream', ...address, ...api]
  const connect = ['connect', '--gateway', 'wss://127.0.0.1:1', '--listen', '127.0.0.1:0']
  for (const command of [serve, connect]) {
    // Through `env`, because tap adds listeners of its own to every process that is started with its options.
    const runner = ['/usr/bin/env', `NODE_OPTIONS=${SIGTERM_IN_THE_START}`]
    const sidecar = startSidecarProcess(command, { runner })
    t.teardown(() => sidecar.signal('SIGKILL'))
    await sidecar.stderr.wait(({ msg }) => msg === 'drained' || msg === 'stopping')
    t.strictSame(await sidecar.exited, { code: 0, signal: null }, command.join(' '))
    t.notOk(sidecar.stderr.records.some(({ level }) => level === 'fatal'))
  }
})

const startRig = async (
  t: Test,
  set: readonly string[] = [],
  env: NonNullable<SidecarProcessOptions['env']> = {},
) => {
  const rig = await startServeRig({ workers: 0, admin: 0, set, process: { env } })
  t.teardown(() => rig.close())
  const { sidecar } = rig
  const reloads = () =>
    sidecar.stderr.records.filter(({ msg }) => /reload|not valid/.test(String(msg)))
  /** The next outcome in the log. */
  const hangUp = async () => {
    const before = reloads().length
    sidecar.signal('SIGHUP')
    await sidecar.stderr.wait(() => reloads().length > before)
    return reloads().at(-1)?.['msg']
  }
  const count = async (outcome: string) =>
    (await rig.scrape()).find((line) =>
      line.startsWith(`openclaw_k8s_config_reloads_total{outcome="${outcome}"}`),
    )
  return { rig, sidecar, hangUp, count, reloads }
}

const RELOADED = 'the configuration was reloaded'

test('SIGHUP reads the configuration again, and counts and logs every outcome', async (t) => {
  const { rig, hangUp, count } = await startRig(t)
  t.equal(await hangUp(), RELOADED, 'also when nothing changed')
  t.match(await count('ok'), / 1$/)
  const good = await readFile(rig.configFile, 'utf8')
  await writeFile(rig.configFile, `${good}\nnonsense: true\n`)
  t.match(await hangUp(), /not valid: the old one stays in force/)
  t.match(await count('failed'), / [12]$/, 'the file watch may have seen it too')
  t.equal((await fetch(`${rig.adminUrl}/livez`)).status, 200)
})

/** Reads `file` in place of the default configuration file, which only root could write. */
const readAsDefault = (file: string) =>
  `--import=data:text/javascript,${encodeURIComponent(`
    import fs from 'node:fs'
    import { syncBuiltinESMExports } from 'node:module'
    const { openSync } = fs
    fs.openSync = (path, ...rest) =>
      openSync(path === '/etc/auth-sidecar/config.yaml' ? ${JSON.stringify(file)} : path, ...rest)
    syncBuiltinESMExports()`)}`

test('a SIGHUP after the default configuration file was deleted fails, and names the file', async (t) => {
  const file = join(t.testdir(), 'config.yaml')
  await writeFile(
    file,
    `listen: { workers: '127.0.0.1:0', admin: '127.0.0.1:0' }
gateway: { protocol: stream }
kubernetes: { apiServer: 'https://127.0.0.1:1' }
k8sTrust: { allowedIdentities: [{ namespace: a, serviceAccount: b }] }`,
  )
  const allowed = 'k8sTrust.allowedIdentities=[{namespace: a, serviceAccount: b}]'
  const sidecar = startSidecarProcess(
    ['serve', '--set', allowed, '--set', 'gateway.protocol=stream'],
    { env: { NODE_OPTIONS: readAsDefault(file) } },
  )
  t.teardown(async () => {
    sidecar.signal('SIGKILL')
    await sidecar.exited
  })
  const { admin } = await sidecar.listening()
  await rm(file)
  sidecar.signal('SIGHUP')
  const { level, reason } = await sidecar.stderr.wait(({ msg }) =>
    /reload|not valid/.test(String(msg)),
  )
  t.equal(level, 'error')
  t.match(reason, /\(\/etc\/auth-sidecar\/config\.yaml\): The file does not exist/)
  const metrics = await (await fetch(`http://${admin}/metrics`)).text()
  t.match(metrics, /^openclaw_k8s_config_last_reload_successful 0$/m)
})

test('a SIGHUP during the start reloads once the sidecar serves', async (t) => {
  const { sidecar, reloads } = await startRig(t, [], { NODE_OPTIONS: SIGHUP_AT_ONCE })
  await sidecar.stderr.wait(({ msg }) => msg === RELOADED)
  t.equal(reloads().length, 1)
  const messages = sidecar.stderr.records.map(({ msg }) => msg)
  t.strictSame(messages.slice(0, 2), ['starting', 'listening'])
})

test('a SIGHUP during the drain reloads, and the drain goes on', async (t) => {
  const { rig, sidecar, hangUp } = await startRig(t, ['drain.window=1m'])
  for (const [name, address] of [
    ['worker-a', '127.0.0.11'],
    ['worker-b', '127.0.0.12'],
  ] as const) {
    await rig.connect(address, rig.mint({ pod: rig.createPod(name, address) }))
  }
  sidecar.signal('SIGTERM')
  await sidecar.stderr.wait(({ msg }) => msg === 'draining')
  t.equal(await hangUp(), RELOADED)
  t.equal((await fetch(`${rig.adminUrl}/readyz`)).status, 503, 'it still drains')
  sidecar.signal('SIGTERM')
  t.strictSame(await sidecar.exited, { code: 1, signal: null })
})

test('SIGUSR1 opens no debugger, and neither it nor SIGUSR2 ends the sidecar', async (t) => {
  const { rig, sidecar, hangUp } = await startRig(t)
  for (const name of ['SIGUSR1', 'SIGUSR2', 'SIGPIPE', 'SIGWINCH'] as const) sidecar.signal(name)
  await hangUp()
  t.equal((await fetch(`${rig.adminUrl}/readyz`)).status, 200)
  sidecar.signal('SIGQUIT')
  t.strictSame(await sidecar.exited, { code: 0, signal: null }, 'SIGQUIT drains')
  const { all, records } = sidecar.stderr
  t.equal(records.length, all.length, 'no debugger said where it listens')
})

test('a broken sidecar exits as broken', async (t) => {
  const { sidecar } = await startRig(t)
  sidecar.signal('SIGSEGV')
  t.strictSame(await sidecar.exited, { code: null, signal: 'SIGSEGV' })
  t.notOk(sidecar.stderr.records.some(({ msg }) => msg === 'draining'))
})
