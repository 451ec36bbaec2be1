/** A changed file is noticed once, however it changes, and takes effect where a reload can. */

import { rm } from 'node:fs/promises'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { createReload, LiveConfig } from '@openclaw-k8s/auth-sidecar/compose/live-config.ts'
import { createReloader, loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { watchFiles } from '@openclaw-k8s/auth-sidecar/config/file-watch.ts'
import { readTls } from '@openclaw-k8s/auth-sidecar/edge/tls.ts'
import { createAuthority } from '../kit/authority.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { waitUntil } from '../kit/wait.ts'
import { mountVolume } from '../kit/volume.ts'

const watchVolume = async (t: Test, { lenient = false } = {}) => {
  const directory = t.testdir()
  const clock = new FakeClock()
  const swap = await mountVolume(directory, { a: 'a1', b: 'b1' })
  const changes: string[] = []
  const [a, b] = [join(directory, 'a'), join(directory, 'b')]
  const readFile = (path: string) => readFileSync(path, 'utf8')
  const show = (path: string) => (lenient && !existsSync(path) ? '-' : readFile(path))
  const stop = watchFiles({
    files: [a, b],
    readFile,
    clock,
    onChanged: () => void changes.push(`${show(a)} ${show(b)}`),
  })
  t.teardown(stop)
  /** An event arms the settling timer next to the polling timer. */
  const noticed = () => waitUntil(() => clock.pending === 2)
  return { directory, clock, swap, changes, noticed, stop }
}

test("the kubelet's swap of a whole volume is noticed once, and so is the next one", async (t) => {
  const { clock, swap, changes, noticed } = await watchVolume(t)
  for (const version of ['2', '3', '4']) {
    await swap({ a: `a${version}`, b: `b${version}` })
    await noticed()
    await clock.advanceAsync(199)
    t.notOk(changes.includes(`a${version} b${version}`), 'it has to settle first')
    await clock.advanceAsync(1000)
    t.equal(changes.at(-1), `a${version} b${version}`)
  }
  t.equal(changes.length, 3, 'once each')
})

test('a swap that changes nothing is ignored, and one changed file is enough', async (t) => {
  const { clock, swap, changes, noticed } = await watchVolume(t)
  await swap({ a: 'a1', b: 'b1' })
  await noticed()
  await clock.advanceAsync(1000)
  t.strictSame(changes, [])
  await swap({ a: 'a1', b: 'b2' })
  await noticed()
  await clock.advanceAsync(1000)
  t.strictSame(changes, ['a1 b2'])
})

test('a file that is away for a moment has not changed', async (t) => {
  const { directory, clock, changes, noticed, swap } = await watchVolume(t)
  await rm(join(directory, '..data'))
  await noticed()
  await clock.advanceAsync(1000)
  t.strictSame(changes, [])
  await swap({ a: 'a2', b: 'b1' })
  await noticed()
  await clock.advanceAsync(1000)
  t.strictSame(changes, ['a2 b1'])
})

test('a file that is gone hides no change of the others, and is reported once', async (t) => {
  const { directory, clock, swap, changes, noticed } = await watchVolume(t, { lenient: true })
  await swap({ a: 'a1' })
  await noticed()
  await clock.advanceAsync(60_000)
  t.strictSame(changes, [], 'the first poll may have met a swap')
  await clock.advanceAsync(60_000)
  t.strictSame(changes, ['a1 -'])
  await clock.advanceAsync(600_000)
  t.equal(changes.length, 1, 'once')
  await swap({ a: 'a2' })
  await noticed()
  await clock.advanceAsync(1000)
  t.strictSame(changes.splice(0), ['a1 -', 'a2 -'])
  await swap({ a: 'a2', b: 'b1' })
  await noticed()
  await clock.advanceAsync(1000)
  t.strictSame(changes.splice(0), ['a2 b1'], 'it is back as it was')
  await rm(join(directory, '..data'))
  await noticed()
  await clock.advanceAsync(60_000)
  await swap({ a: 'a2', b: 'b1' })
  await clock.advanceAsync(600_000)
  t.strictSame(changes, [], 'away at one poll only')
})

test('a change next to a file that is away waits for the poll at most', async (t) => {
  const { clock, swap, changes, noticed } = await watchVolume(t, { lenient: true })
  await swap({ a: 'a2' })
  await noticed()
  await clock.advanceAsync(1000)
  t.strictSame(changes, [], 'this may be half of a swap')
  await clock.advanceAsync(60_000)
  t.strictSame(changes, ['a2 -'])
  await swap({ a: 'a2', b: 'b1' })
  await noticed()
  await clock.advanceAsync(1000)
  t.strictSame(changes, ['a2 -', 'a2 b1'], 'and then it is back')
})

test('if events get lost the files are still read once a minute, and a stop leaves no timer', async (t) => {
  const clock = new FakeClock()
  const files: Record<string, string> = { '/etc/x/a': '1', '/etc/x/b': '1', '/etc/y/c': '1' }
  const watched: string[] = []
  const closed: string[] = []
  let changes = 0
  let onEvent = () => {}
  const stop = watchFiles({
    files: Object.keys(files),
    readFile: (path) => files[path] ?? '',
    clock,
    onChanged: () => (changes += 1),
    watchDirectory: (path, notify) => {
      watched.push(path)
      onEvent = notify
      return { close: () => void closed.push(path) }
    },
  })
  t.strictSame(watched, ['/etc/x', '/etc/y'], 'directories, each once')
  files['/etc/x/b'] = '2'
  clock.advance(59_999)
  t.equal(changes, 0)
  clock.advance(1)
  t.equal(changes, 1)
  files['/etc/y/c'] = '2'
  clock.advance(60_000)
  t.equal(changes, 2)
  onEvent()
  stop()
  t.strictSame(closed, watched)
  t.equal(clock.pending, 0)
})

const configOf = (...flags: readonly string[]) =>
  loadConfig({
    env: {},
    flags: [
      'gateway.protocol=stream',
      'k8sTrust.allowedIdentities=[{namespace: a, serviceAccount: b}]',
      ...flags,
    ],
    readFile: () => '',
  }).config

test('a reload applies the policy at once and names the sections that need a restart', async (t) => {
  const settings = new LiveConfig(configOf())
  t.equal(settings.policy.isListed('a', 'b'), true)
  const waiting = settings.apply(
    configOf(
      'k8sTrust.allowedIdentities=[{namespace: a, serviceAccount: c}]',
      'k8sTrust.sourceAddress=report',
      'k8sTrust.onTokenExpiry=close',
      'k8sTrust.maxSessionAge=1h',
      'k8sTrust.terminationGrace=1s',
      'k8sTrust.maxWatchStaleness=1s',
      'k8sTrust.onApiOutage=verify-locally',
      'k8sTrust.expiredTokenReconnectGrace=1m',
      'k8sTrust.maxTokenLifetime=1h',
      'k8sTrust.allowHostNetwork=true',
      'k8sTrust.auditLog=false',
    ),
  )
  t.strictSame(waiting, [])
  t.match(settings.config.k8sTrust, {
    sourceAddress: 'report',
    onTokenExpiry: 'close',
    maxSessionAge: 3_600_000,
    terminationGrace: 1000,
    maxWatchStaleness: 1000,
    onApiOutage: 'verify-locally',
    expiredTokenReconnectGrace: 60_000,
    maxTokenLifetime: 3_600_000,
    allowHostNetwork: true,
    auditLog: false,
  })
  t.equal(settings.policy.isListed('a', 'b'), false)
  t.equal(settings.policy.isListed('a', 'c'), true)

  const port = settings.config.listen.workers.port
  t.strictSame(
    settings.apply(configOf('listen.workers=0.0.0.0:1', 'k8sTrust.audiences=[other]')).toSorted(),
    ['k8sTrust', 'listen'],
  )
  t.equal(settings.config.listen.workers.port, port)
  t.strictSame(settings.config.k8sTrust.audiences, ['openclaw-gateway'])
  t.equal(settings.config.k8sTrust.sourceAddress, 'enforce', 'what was taken out is back')
})

test('a configuration file that was read and is gone never counts as no file', async (t) => {
  const defaultFile = '/etc/auth-sidecar/config.yaml'
  const text = `gateway: { protocol: stream }
k8sTrust: { enabled: false, allowedIdentities: [{ namespace: a, serviceAccount: b }] }`
  const files = new Map<string, string>()
  const readFile = (path: string) => {
    const found = files.get(path)
    if (found === undefined) throw Object.assign(new Error('absent'), { code: 'ENOENT' })
    return found
  }
  const set = ['k8sTrust.allowedIdentities=[{namespace: a, serviceAccount: c}]']
  const options = { env: {}, flags: [...set, 'gateway.protocol=stream'], readFile }
  const gone = /\(\/etc\/auth-sidecar\/config\.yaml\): The file does not exist/

  const loadNone = createReloader({ ...options, defaultFile }, loadConfig(options))
  t.equal(loadNone().config.k8sTrust.enabled, true, 'there has never been one')
  for (const named of [{ defaultFile }, { file: defaultFile }]) {
    files.set(defaultFile, text)
    const loadAgain = createReloader({ ...options, ...named }, loadConfig({ ...options, ...named }))
    const outcomes: unknown[] = []
    const clock = new FakeClock()
    const onChanged = () => {
      try {
        outcomes.push(loadAgain().config.k8sTrust.enabled)
      } catch (error) {
        outcomes.push(String(error))
      }
    }
    const watchDirectory = () => ({ close: () => {} })
    t.teardown(watchFiles({ files: [defaultFile], readFile, clock, onChanged, watchDirectory }))
    files.clear()
    await clock.advanceAsync(120_000)
    t.match(outcomes.splice(0), [gone])
    files.set(defaultFile, text)
    await clock.advanceAsync(60_000)
    t.strictSame(outcomes.splice(0), [false], 'it is back')
  }
  t.equal(loadNone().config.k8sTrust.enabled, false, 'now there is one')
  files.clear()
  t.throws(loadNone, gone, 'and now it is missed')
})

test('a broken client CA holds back no new certificate, nor a broken pair a new client CA', async (t) => {
  const [one, two] = [await createAuthority('one'), await createAuthority('two')]
  const issue = async () => one.issue({ commonName: 'sidecar', hosts: ['localhost'] })
  const [first, second, third] = [await issue(), await issue(), await issue()]
  const files = new Map([
    ['/crt', first.cert],
    ['/key', first.key],
    ['/ca', one.cert],
  ])
  const readFile = (path: string) => files.get(path) ?? ''
  const config = configOf('listen.tls={certFile: /crt, keyFile: /key, clientCaFile: /ca}')
  const tls = readTls(config.listen.tls, readFile)
  let [inUse, watched, refusedCert] = [tls, tls, '']
  let isGood = 1
  const reasons: string[] = []
  const reload = createReload({
    live: new LiveConfig(config),
    runtime: {
      readFile,
      log: { info: () => {}, error: ({ reason }: { reason: string }) => reasons.push(reason) },
    } as never,
    metrics: {
      configReloads: { inc: () => {} },
      configReloaded: { set: (value: number) => (isGood = value) },
    } as never,
    workerPort: {
      renewTls(next) {
        if (next.cert === refusedCert) throw new Error('ee key too small')
        inUse = next
      },
    },
    certificates: { use: (next) => (watched = next) },
    tls,
  })
  const after = (changes: Readonly<Record<string, string>>) => {
    for (const [path, text] of Object.entries(changes)) files.set(path, text)
    reasons.length = 0
    reload(() => ({ config, file: undefined, warnings: [], explicitPaths: new Set() }))
    t.strictSame(watched, inUse, 'the dates of those in use are watched')
    t.match(inUse, { requestCert: true, rejectUnauthorized: true }, 'never without a client CA')
    return { cert: inUse?.cert, key: inUse?.key, ca: inUse?.ca, isGood, reason: reasons.join() }
  }
  const pairOf = ({ cert, key }: typeof first) => ({ '/crt': cert, '/key': key })

  t.match(after({ ...pairOf(second), '/ca': 'broken' }), {
    ...second,
    ca: one.cert,
    isGood: 0,
    reason: /clientCaFile \(\/ca\): This is not a PEM file/,
  })
  t.match(after({ '/crt': 'broken', '/ca': two.cert }), {
    ...second,
    ca: two.cert,
    isGood: 0,
    reason: /certFile \(\/crt\): This is not a PEM file/,
  })
  const both = after({ ...pairOf(third), '/key': first.key, '/ca': 'broken' })
  t.match(both, { ...second, ca: two.cert, isGood: 0, reason: /clientCaFile .*not a PEM file/ })
  t.match(both.reason, /keyFile .*does not match/, 'both problems are told')
  refusedCert = third.cert
  t.match(after({ ...pairOf(third), '/ca': one.cert }), {
    ...second,
    ca: one.cert,
    isGood: 0,
    reason: /listen\.tls: ee key too small/,
  })
  refusedCert = ''
  t.match(after({}), { ...third, ca: one.cert, isGood: 1, reason: '' })
})
