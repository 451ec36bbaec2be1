/** The `doctor` command names everything that the sidecar can lack, and says what to do. */

import { rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { createServer as createTcpServer, type AddressInfo } from 'node:net'
import { networkInterfaces } from 'node:os'
import { dirname, join } from 'node:path'
import { test, type Test } from 'tap'
import { run as doctor } from '@openclaw-k8s/auth-sidecar/commands/doctor.ts'
import { bracketed } from '@openclaw-k8s/auth-sidecar/lib/address.ts'
import { listDialable } from '@openclaw-k8s/auth-sidecar/lib/own-addresses.ts'
import { describeFinding } from '@openclaw-k8s/auth-sidecar/doctor/finding.ts'
import { startSidecarProcess } from '../kit/sidecar-process.ts'
import { startServeRig } from '../kit/serve-rig.ts'
import { createAuthority } from '../kit/authority.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import type { KubeApi } from '../kit/kube-api.ts'
import type { ReviewBody } from '../kit/kube-faults.ts'
import { startRig, type Rig, type RigOptions } from '../kit/rig.ts'
import { runCommand } from '../kit/run-command.ts'
import { runUntil } from '../kit/run-clock.ts'
import { waitUntil } from '../kit/wait.ts'

/** A label this long is not a valid name, so no resolver is asked. */
const NO_HOST = `${'a'.repeat(64)}.invalid`
const IDENTITIES = '[{namespace: openclaw, serviceAccount: openclaw-worker}]'

const ready = async (t: Test, options: RigOptions = {}) => {
  const clock = new FakeClock()
  const prepare = (api: KubeApi) => {
    api.createServiceAccount('openclaw', 'openclaw-worker')
    options.prepare?.(api)
  }
  const rig = await startRig({ clock, ...options, prepare })
  t.teardown(() => rig.stop())
  await waitUntil(async () => (await fetch(`${rig.adminUrl}/readyz`)).ok)

  return { clock, rig }
}

const settingsOf = (rig: Rig): readonly string[] => [
  `listen.admin=${new URL(rig.adminUrl).host}`,
  `listen.workers=${new URL(rig.url).host}`,
  `gateway.url=${rig.gateway.url}`,
  'gateway.protocol=stream',
  // However few files this machine allows.
  'limits.streams=100',
  `kubernetes.apiServer=${rig.api.url}`,
  `kubernetes.caFile=${join(dirname(rig.tokenFile), 'ca.crt')}`,
  `kubernetes.tokenFile=${rig.tokenFile}`,
  `k8sTrust.allowedIdentities=${IDENTITIES}`,
]

/** What the doctor prints in the sidecar's container, by the name of the check. */
const examine = async (rig: Rig, clock: FakeClock, set: readonly string[] = []) => {
  const outcome = await runCommand(doctor, { clock, set: [...settingsOf(rig), ...set] })
  return read(outcome)
}

const read = ({ exitCode, stdout, stderr }: Awaited<ReturnType<typeof runCommand>>) => {
  const lines = stdout.trimEnd().split('\n')
  const summary = lines.pop() ?? ''
  const failed = lines.filter((line) => line.startsWith('[fail] '))
  const of = (name: string) => lines.filter((line) => line.includes(`] ${name}: `)).join('\n')
  return { exitCode, stdout, stderr, lines, summary, failed, of }
}

test('a sidecar that has everything it needs passes every check', async (t) => {
  const { rig, clock } = await ready(t)
  const { exitCode, lines, summary, stderr } = await examine(rig, clock)
  const gateway = new URL(rig.gateway.url).host
  t.strictSame(lines, [
    '[warn] tls: listen.tls is not set: anyone who can read the pod network can read the tokens. ' +
      'Set listen.tls, unless the network itself is encrypted.',
    "[warn] addresses: listen.admin is on loopback, where the kubelet's probes cannot reach it. " +
      `Listen on [::]:${new URL(rig.adminUrl).port}, which is every address of both families.`,
    '[warn] addresses: listen.workers is on loopback, where workers cannot reach it. ' +
      `Listen on [::]:${rig.port}, which is every address of both families.`,
    '[ok] configuration: valid, 1 identity allowed',
    '[ok] files: kubernetes.caFile, kubernetes.tokenFile: readable',
    `[ok] api-server: Kubernetes v1.35.4 at ${rig.api.url} accepts the sidecar's token`,
    "[ok] clock: within 5 s of the API server's clock",
    '[ok] own-token: system:serviceaccount:openclaw:openclaw-gateway, valid for another 3600 s',
    '[ok] signing-keys: fetched; the cluster issues tokens as https://kubernetes.default.svc.cluster.local',
    '[ok] rights: can create tokenreviews, and read pods and ServiceAccounts in namespace openclaw',
    '[ok] reviews: the API server reviews tokens',
    '[ok] allow-list: its ServiceAccount exists',
    `[ok] gateway: a server listens on ${gateway}`,
    '[ok] gateway-upgrade: the gateway upgrades a connection of a worker',
    '[ok] sidecar: ready, 4 checks passed',
    '[ok] refusals: none in the last 10 minutes',
  ])
  t.equal(summary, '13 ok, 3 warnings, 0 failed')
  t.equal(stderr, '')
  t.equal(exitCode, 0)
})

test('failures come first, in color on a terminal, or as JSON', async (t) => {
  const { rig, clock } = await ready(t)
  const set = [...settingsOf(rig), 'gateway.url=ws://127.0.0.1:1']
  const { lines } = read(await runCommand(doctor, { clock, set }))
  const levels = lines.map((line) => /^\[(\w+)\]/.exec(line)?.[1])
  t.strictSame([...new Set(levels)], ['fail', 'warn', 'ok'])
  t.notMatch(lines.join(''), '\u001B')
  const colored = await runCommand(doctor, { clock, set, isColored: true })
  t.ok(colored.stdout.startsWith('\u001B[31m[fail]\u001B[0m gateway: '), colored.stdout)
  t.match(colored.stdout, '\u001B[33m[warn]\u001B[0m tls: ')
  const json = await runCommand(doctor, { clock, set, argv: ['--json'] })
  t.equal(json.exitCode, 69)
  const { counts, findings } = JSON.parse(json.stdout) as { counts: object; findings: object[] }
  t.match(counts, { fail: 1, warn: 3 })
  t.match(findings[0], { level: 'fail', name: 'gateway', what: /^nothing/, remedy: /^Start/ })
  t.equal(findings.length, lines.length)
})

test('an entry of the allow-list that means no ServiceAccount is named', async (t) => {
  const { rig, clock } = await ready(t)
  const allowList = async (entries: string) =>
    examine(rig, clock, [`k8sTrust.allowedIdentities=[${entries}]`])
  const [good, typo] = [
    '{namespace: openclaw, serviceAccount: openclaw-worker}',
    '{namespace: opneclaw, serviceAccount: openclaw-worker}',
  ]
  const only = await allowList(typo)
  t.equal(
    only.of('allow-list'),
    '[fail] allow-list: no ServiceAccount matches opneclaw/openclaw-worker: no worker can be admitted. ' +
      'Correct k8sTrust.allowedIdentities, or create the namespace and the ServiceAccount.',
  )
  t.equal(only.exitCode, 69)
  const other = '{namespace: openclaw, serviceAccount: worker-*}'
  const both = await allowList(`${good}, ${other}, ${typo}`)
  t.match(
    both.of('allow-list'),
    /^\[warn\] .* matches openclaw\/worker-\*, opneclaw\/openclaw-worker\. Correct/,
  )
  t.equal(both.exitCode, 0)
  const globs = '{namespace: openclaw, serviceAccount: "*-worker"}'
  t.match((await allowList(`${good}, ${globs}`)).of('allow-list'), /^\[ok\] .* each of 2 entries/)
  rig.api.setFault('lists', { kind: 'status', status: 403 })
  t.equal((await allowList(typo)).of('allow-list'), '', 'what cannot be read is not judged')
})

test('a gateway that also listens beyond loopback fails', async (t) => {
  const { rig, clock } = await ready(t)
  const [address] = listDialable(networkInterfaces())
  if (address === undefined) {
    t.pass('this machine has no address but loopback')
    return
  }
  const open = createTcpServer((socket) => socket.destroy()).listen(0, '::')
  t.teardown(() => open.close())
  await once(open, 'listening')
  const { port } = open.address() as AddressInfo
  const examineAt = async (url: string) => {
    const set = [...settingsOf(rig), `gateway.url=${url}`]
    return read(await runCommand(doctor, { clock, set, addresses: [address] }))
  }
  const bad = await examineAt(`ws://127.0.0.1:${port}`)
  t.match(
    bad.of('gateway').split('\n')[0] ?? '',
    `[fail] gateway: the gateway also listens on ${bracketed(address)}:${port}: anyone who reaches that ` +
      'address bypasses the sidecar. Bind the gateway to loopback (gateway.bind: loopback in openclaw.json).',
  )
  t.equal(bad.exitCode, 69)
  t.notMatch((await examineAt(rig.gateway.url)).of('gateway'), 'also listens')
})

test('whom the running sidecar refused is told by code, with the pod and the runbook', async (t) => {
  const { rig, clock } = await ready(t)
  const refuse = async (name: string, ip: string) => {
    const token = rig.mint({ pod: rig.createPod(name, ip) })
    const outcome = await rig.connect({ token, localAddress: '127.0.0.99' })
    t.equal(outcome.ok, false)
  }
  await refuse('worker-a', '127.0.0.11')
  const one = await examine(rig, clock)
  t.match(
    one.of('refusals'),
    /^\[warn\] refusals: 1 × source_address_mismatch within the hour, last at 2026-11-23T12:\S+ by pod openclaw\/worker-a \(ServiceAccount openclaw-worker\) at 127\.0\.0\.99\. .+\. See runbook\.md#source_address_mismatch\.$/,
  )
  t.match(
    one.of('source-address'),
    /^\[warn\] source-address: pod openclaw\/worker-a was refused at 127\.0\.0\.99, which is not its own: the network hides the addresses of pods, or the token is stolen .* delete both pods\. If it is a node's or a proxy's: Turn off/,
    'one pod at a foreign address may be a theft',
  )
  t.equal(one.exitCode, 0)
  const onNode = await runCommand(doctor, {
    clock,
    set: settingsOf(rig),
    env: { HOST_IP: '127.0.0.99' },
  })
  t.match(
    read(onNode).of('source-address'),
    /^\[fail\] .* \(127\.0\.0\.99 is this node\): the network hides the addresses of pods \(/,
  )
  await refuse('worker-b', '127.0.0.12')
  await rig.connect({ token: 'nonsense' })
  const two = await examine(rig, clock)
  t.match(two.of('refusals').split('\n'), [/^\[warn\] refusals: 2 × source_/, /1 × token_/])
  t.match(
    two.of('source-address'),
    /^\[fail\] source-address: 2 pods were refused at 127\.0\.0\.99, which is not the address of any of them: the network hides the addresses of pods .* Turn off masquerading/,
  )
  t.equal(two.exitCode, 69)
  clock.advance(10 * 60_000 + 1)
  const later = await examine(rig, clock)
  t.match(later.of('refusals'), /^\[ok\] refusals: none in the last 10 minutes/)
  t.equal(later.of('source-address'), '')
})

test('pods that are refused at an address each may be behind SNAT, or robbed of their tokens', async (t) => {
  const { rig, clock } = await ready(t)
  for (const n of [1, 2, 3]) {
    const token = rig.mint({ pod: rig.createPod(`worker-${n}`, `127.0.0.1${n}`) })
    t.equal((await rig.connect({ token, localAddress: `127.0.0.10${n}` })).ok, false)
  }
  const { of, exitCode } = await examine(rig, clock)
  t.match(
    of('source-address'),
    /^\[warn\] source-address: 3 pods were refused at 127\.0\.0\.103, 127\.0\.0\.102, 127\.0\.0\.101, each at an address that is not its own: the network hides the addresses of pods, or the tokens are stolen \(source_address_mismatch, 3 times\)\. If it is another pod's address .* delete both pods\./,
  )
  t.equal(exitCode, 0)
})

test('tokens of several pods at the address of another pod are not told as SNAT', async (t) => {
  const { rig, clock } = await ready(t)
  const refuse = async (name: string, ip: string, localAddress: string) => {
    const token = rig.mint({ pod: rig.createPod(name, ip) })
    t.equal((await rig.connect({ token, localAddress })).ok, false)
  }
  rig.createPod('thief', '127.0.0.99')
  for (const n of [1, 2]) await refuse(`robbed-${n}`, `127.0.0.1${n}`, '127.0.0.99')
  const thief = await examine(rig, clock)
  t.match(
    thief.of('source-address'),
    /^\[warn\] source-address: 2 pods were refused at 127\.0\.0\.99, which is not the address of any of them: the network hides the addresses of pods, or the tokens are stolen .* delete both pods\./,
  )
  t.equal(thief.exitCode, 0)
  // A fact about one address must not hide what is unclear about another.
  for (const n of [3, 4]) await refuse(`behind-${n}`, `127.0.0.1${n}`, '127.0.0.98')
  t.match((await examine(rig, clock)).of('source-address').split('\n'), [
    /^\[fail\] source-address: 2 pods were refused at 127\.0\.0\.98, .*: the network hides the addresses of pods \(.* Turn off/,
    /^\[warn\] source-address: 2 pods were refused at 127\.0\.0\.99, .* or the tokens are stolen/,
  ])
})

test('without signing keys SNAT is told too, as a guess', async (t) => {
  const keys = { kind: 'status', status: 404, body: { kind: 'Status' } } as const
  const { rig, clock } = await ready(t, {
    prepare: (api) => api.setFault('jwks', keys),
  })
  const token = rig.mint({ pod: rig.createPod('worker-a', '127.0.0.11') })
  const answer = rig.connect({ token, localAddress: '127.0.0.99' })
  t.match(await runUntil(clock, answer), { ok: false })
  const { of } = await examine(rig, clock)
  t.match(
    of('source-address'),
    /^\[warn\] source-address: pod openclaw\/worker-a was refused at 127\.0\.0\.99, .* times, unproven without signing keys\)/,
  )
})

test('what a server says reaches no terminal unescaped, as text or as JSON', async (t) => {
  const { rig, clock } = await ready(t)
  const gitVersion = 'v1.35.4\u001b[2J\u202eb\u009bc'
  rig.api.setFault('version', { kind: 'status', status: 200, body: { gitVersion } })
  const set = settingsOf(rig)
  const json = await runCommand(doctor, { clock, set, argv: ['--json'] })
  t.match(json.stdout, /\\u001b\[2J\\u202eb\\u009bc/)
  t.notMatch(json.stdout, /[^\u0020-\u007e\n]/)
  const { stdout } = await runCommand(doctor, { clock, set })
  t.notMatch(stdout, /\p{Cc}(?<!\n)|\u202e/u)
})

test('a name that nobody has proven is never told as fact', async (t) => {
  const { rig, clock } = await ready(t)
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const forged = rig.mint({ pod, audiences: ['another'] }).replace(/[^.]*$/, 'A'.repeat(86))
  t.equal((await rig.connect({ token: forged })).ok, false)
  const { of } = await examine(rig, clock)
  t.match(
    of('refusals'),
    /audience_mismatch within the hour, last at \S+ by an unverified token that names pod openclaw\/worker-a \(/,
  )
  for (let n = 0; n < 6; n += 1) {
    const other = rig.createPod(`other-${n}`, `127.0.0.2${n}`)
    clock.advance(1000)
    await rig.connect({ token: rig.mint({ pod: other, audiences: ['another'] }) })
  }
  const many = await examine(rig, clock)
  t.match(many.of('refusals'), /by unverified tokens with many names at 127/)
})

test('TokenReviews that are refused are a warning of the running sidecar', async (t) => {
  const { rig, clock } = await ready(t)
  const readyz = async () => (await fetch(`${rig.adminUrl}/readyz?verbose`)).text()
  rig.api.setRbac({ tokenReviews: false })
  const token = rig.mint({ pod: rig.createPod() })
  t.equal((await rig.connect({ token })).ok, false)
  t.match(await readyz(), /^\[!\] .*the API server refuses the sidecar's TokenReviews/m)
  t.match(
    (await examine(rig, clock)).of('sidecar'),
    /^\[warn\] .* refuses the sidecar's TokenReviews: .* Let the sidecar's ServiceAccount create/m,
  )
  rig.api.setRbac({ tokenReviews: true })
  const outcome = await rig.connect({ token })
  t.equal(outcome.ok, true)
  t.notMatch(await readyz(), 'TokenReviews')
  if (outcome.ok) outcome.socket.terminate()
})

test('files that nobody can locate are not called readable', async (t) => {
  const { rig, clock } = await ready(t)
  const set = ['listen.admin=127.0.0.1:1', `gateway.url=${rig.gateway.url}`]
  const trust = ['gateway.protocol=stream', `k8sTrust.allowedIdentities=${IDENTITIES}`]
  const { of } = read(await runCommand(doctor, { clock, set: [...set, ...trust] }))
  t.equal(of('files'), '')
  t.match(of('api-server'), /^\[fail\]/)
})

test('a certificate that is unfit is a failure, and one that should be renewed a warning', async (t) => {
  const { rig, clock } = await ready(t)
  const authority = await createAuthority('workers')
  const directory = t.testdir()
  const day = (days: number) => new Date(clock.now() + days * 86_400_000)
  const examineWith = async (request: object, ca = authority.cert) => {
    const { cert, key } = await authority.issue({ commonName: 'c', hosts: ['a'], ...request })
    const file = (name: string, text: string) => {
      writeFileSync(join(directory, name), text)
      return join(directory, name)
    }
    const files = `certFile: ${file('tls.crt', cert)}, keyFile: ${file('tls.key', key)}`
    const tls = `listen.tls={${files}, clientCaFile: ${file('ca', ca)}, serverNames: [a]}`
    return examine(rig, clock, [tls])
  }
  const span = (from: number, to: number) => ({ notBefore: day(from), notAfter: day(to) })
  const past = await createAuthority('past', span(-30, -1))
  const present = await createAuthority('present', span(-30, 300))
  for (const [request, ca, expected] of [
    [
      span(-90, -1),
      present,
      /^\[fail\] certificates: listen\.tls\.certFile \(.*\): The certificate of CN=c expired at .*Z\. Renew/m,
    ],
    [span(1, 90), present, /^\[fail\] .* CN=c is not valid before .*Z\. Compare/m],
    [{ ...span(-1, 90), usage: 'client' }, present, /^\[fail\] .* not for servers/m],
    [{ ...span(-1, 90), hosts: ['b'] }, present, /^\[fail\] .* not for a; it has DNS:b\. Issue/m],
    [span(-1, 90), past, /^\[fail\] certificates: listen\.tls\.clientCaFile .* CN=past expired/m],
    [span(-80, 10), present, /^\[warn\] certificates: .* expires soon, at .*Z\. Renew/m],
    [span(-1, 90), present, /^\[ok\] certificates: listen\.tls\.certFile: valid until /m],
  ] as const) {
    const { of, exitCode } = await examineWith(request, ca.cert)
    t.match(of('certificates'), expected)
    t.equal(exitCode, of('certificates').includes('[fail]') ? 69 : 0)
  }
})

test('an invalid command line or configuration exits 64 or 78', async (t) => {
  t.match(await runCommand(doctor, { argv: ['now'] }), {
    exitCode: 64,
    stderr: /\nUsage: auth-sidecar doctor /,
  })
  t.match(await runCommand(doctor, { set: ['k8sTrust.allowedIdentities=[]'] }), {
    exitCode: 78,
    stdout: '',
    stderr: /k8sTrust\.allowedIdentities/,
  })
})

test('an unreachable API server fails once, and is asked nothing else', async (t) => {
  const { rig, clock } = await ready(t)
  await rig.api.stop()
  const { exitCode, failed, lines } = await examine(rig, clock)
  t.equal(exitCode, 69)
  t.equal(failed.length, 1)
  t.match(
    failed[0],
    /^\[fail\] api-server: https:.*ECONNREFUSED.*; the other cluster checks were skipped\. Check kubernetes\.apiServer, and that the network lets this pod reach it\.$/,
  )
  t.notOk(lines.some((line) => /reviews|rights|signing-keys/.test(line)))
})

test('an unknown host, another CA and another server are distinguished', async (t) => {
  const { rig, clock } = await ready(t)
  const unknown = await examine(rig, clock, [`kubernetes.apiServer=https://${NO_HOST}`])
  t.match(
    unknown.of('api-server'),
    /^\[fail\] .* Check the host in kubernetes\.apiServer, and the DNS of this pod\.$/,
  )

  rig.api.setFault('version', { kind: 'rewrite', rewrite: () => ({ hello: 'world' }) })
  const other = await examine(rig, clock)
  t.match(
    other.of('api-server'),
    /^\[fail\] .* is not a Kubernetes API server\. Correct kubernetes\.apiServer\.$/,
  )
  t.equal(other.exitCode, 69)
  rig.api.clearFaults()

  await rig.api.rotateAuthority()
  rig.api.dropConnections()
  const foreign = await examine(rig, clock)
  t.match(
    foreign.of('api-server'),
    /^\[fail\] .* certificate; the other .* Check that kubernetes\.caFile holds the CA of this API server\.$/,
  )
})

test('a token that the API server refuses is reported with its file', async (t) => {
  const { rig, clock } = await ready(t)
  rig.api.revokeSidecarToken()
  const { of, exitCode } = await examine(rig, clock)
  t.equal(exitCode, 69)
  t.match(of('api-server'), /answered 401 to the sidecar's own credential .* server; the other/)
  t.match(of('api-server'), `Mount a token for the API server's audience at ${rig.tokenFile}`)
})

test('outside a pod it says which options are required', async (t) => {
  const { rig, clock } = await ready(t)
  const set = settingsOf(rig).filter((setting) => !setting.startsWith('kubernetes.'))
  const { of, exitCode } = read(await runCommand(doctor, { clock, set }))
  t.equal(exitCode, 69)
  t.match(
    of('api-server'),
    /^\[fail\] api-server: kubernetes\.apiServer is not set and this process is not running in a pod .* Set kubernetes\.apiServer, .*\. Or run this in the sidecar's container\.$/,
  )
  const env = {
    KUBERNETES_SERVICE_HOST: '127.0.0.1',
    KUBERNETES_SERVICE_PORT: String(rig.api.port),
  }
  const inPod = read(await runCommand(doctor, { clock, env, set }))
  t.match(
    inPod.of('files'),
    /kubernetes\.tokenFile \(\/var\/run\/secrets\/[^)]*\): The file does not exist\. Mount the file there/,
  )
  t.match(
    inPod.of('api-server'),
    /was not asked: the sidecar's token or the CA cannot be read\. Fix the files first\.$/,
  )
})

test('every missing or invalid file fails under the name of its option', async (t) => {
  const { rig, clock } = await ready(t)
  const directory = t.testdir({ seed: 'too-short', secret: '\n' })
  const openclaw = [
    'gateway.protocol=openclaw',
    `gateway.auth.secretFile=${directory}/secret`,
    `gateway.deviceSeedFile=${directory}/seed`,
  ]
  const bad = await examine(rig, clock, openclaw)
  t.equal(bad.exitCode, 69)
  t.strictSame(bad.of('files').split('\n'), [
    `[fail] files: gateway.auth.secretFile (${directory}/secret): The file is empty. Write the file, or mount it.`,
    `[fail] files: gateway.deviceSeedFile (${directory}/seed): The seed is shorter than 16 bytes. ` +
      'Write 32 random bytes to the file, in base64 or hexadecimal.',
  ])
  rmSync(`${directory}/seed`)
  t.match(
    (await examine(rig, clock, openclaw)).of('files'),
    /deviceSeedFile \(.*\/seed\): The file does not exist/,
  )
  writeFileSync(`${directory}/seed`, 'a-seed-of-more-than-sixteen-bytes')
  writeFileSync(`${directory}/secret`, 'secret')
  t.equal(
    (await examine(rig, clock, openclaw)).of('files'),
    '[ok] files: gateway.auth.secretFile, gateway.deviceSeedFile, kubernetes.caFile, kubernetes.tokenFile: readable',
  )
  // The product's default files must exist too, although nobody named them.
  const defaults = (await examine(rig, clock, ['gateway.protocol=openclaw'])).of('files')
  t.match(
    defaults,
    /gateway\.auth\.secretFile \(\/etc\/openclaw-gateway\/token\): The file does not exist/,
  )
  t.match(
    defaults,
    /gateway\.deviceSeedFile \(\/etc\/auth-sidecar\/device-seed\): The file does not exist/,
  )
})

test('signing keys that are unavailable, or do not match the tokens, are a finding', async (t) => {
  const { rig, clock } = await ready(t)
  const keys = async (set: readonly string[] = []) =>
    (await examine(rig, clock, set)).of('signing-keys')
  rig.api.setFault('jwks', { kind: 'status', status: 403 })
  for (const status of [403, 404]) {
    rig.api.setFault('jwks', { kind: 'status', status, body: { kind: 'Status' } })
    t.match(
      await keys(),
      /^\[warn\] .*answered 40[34]\. Every token is proven by a TokenReview alone\. Bind the ClusterRole system:service-account-issuer-discovery to the sidecar's ServiceAccount\. If the API server answers 404, its --service-account-issuer is not an https URL\.$/,
    )
  }
  rig.api.clearFaults()
  rig.api.setFault('discovery', { kind: 'status', status: 404, body: { kind: 'Status' } })
  t.match(await keys(), /^\[warn\] .* does not say who its issuer is.* Set kubernetes\.issuers\./)
  t.match(await keys(['kubernetes.issuers=[api]']), /^\[ok\] .*accepted from api$/)
  rig.api.clearFaults()
  rig.api.setFault('jwks', { kind: 'status', status: 500 })
  t.match(await keys(), /^\[fail\] .*HTTP 500\. Check kubernetes\.apiServer/)
  rig.api.clearFaults()
  t.match(
    await keys(['kubernetes.issuers=[https://elsewhere]']),
    /^\[fail\] .* issues tokens as https:\/\/kubernetes\.default\.svc\.cluster\.local, which is not in kubernetes\.issuers\. Add it there/,
  )
  t.match(await keys([`kubernetes.issuers=[https://elsewhere, "${rig.api.issuer}"]`]), /^\[ok\] /)
  await rig.api.rotateKeys({ keepOld: false })
  t.match(
    await keys(),
    /^\[fail\] .* not signed with any of them \(signing_key_unknown\)\. Check that/,
  )
})

test('each missing right is named with its namespace and who can grant it', async (t) => {
  const { rig, clock } = await ready(t)
  const rights = async (set: readonly string[] = []) =>
    (await examine(rig, clock, set)).of('rights')
  const role =
    "Bind a role there that can get, list and watch pods, and list and watch serviceaccounts, to the sidecar's ServiceAccount."
  rig.api.setRbac({ tokenReviews: false })
  t.equal(
    await rights(),
    "[fail] rights: cannot create tokenreviews. Let the sidecar's ServiceAccount create tokenreviews.authentication.k8s.io, as the shipped ClusterRole does.",
  )
  rig.api.setRbac({ tokenReviews: true, pods: false })
  t.equal(
    await rights(),
    `[fail] rights: cannot get, list, watch pods in namespace openclaw. ${role}`,
  )
  rig.api.setRbac({ serviceAccounts: false })
  t.equal(
    await rights(),
    `[fail] rights: cannot get, list, watch pods, or list, watch serviceaccounts in namespace openclaw. ${role}`,
  )
  rig.api.setRbac({ pods: true, serviceAccounts: true, namespaces: ['openclaw'] })
  const more = '[{namespace: openclaw, serviceAccount: a}, {namespace: lab, serviceAccount: "*"}]'
  t.equal(
    await rights([`k8sTrust.allowedIdentities=${more}`]),
    `[fail] rights: cannot get, list, watch pods, or list, watch serviceaccounts in namespace lab. ${role}`,
  )
  const glob = '[{namespace: "team-*", serviceAccount: worker}]'
  t.equal(
    await rights([`k8sTrust.allowedIdentities=${glob}`]),
    `[fail] rights: cannot get, list, watch pods, or list, watch serviceaccounts in the whole cluster. ${role}`,
  )
})

test('only rights that are needed are asked for, each once', async (t) => {
  const { rig, clock } = await ready(t)
  rig.api.setRbac({ namespaces: [] })
  const off = await examine(rig, clock, ['k8sTrust.enabled=false'])
  t.equal(off.of('rights'), '[ok] rights: can create tokenreviews')
  t.equal(rig.api.counts.accessReviews, 1)
  rig.api.setRbac({ namespaces: ['openclaw'] })
  const two = '[{namespace: openclaw, serviceAccount: a}, {namespace: openclaw, serviceAccount: b}]'
  t.match(
    (await examine(rig, clock, [`k8sTrust.allowedIdentities=${two}`])).of('rights'),
    /^\[ok\]/,
  )
  t.equal(rig.api.counts.accessReviews, 1 + 1 + 3 + 2 * 2)
})

test('only a few of many namespaces are named', async (t) => {
  const { rig, clock } = await ready(t)
  const list = Array.from({ length: 256 }, (_, n) => `{namespace: ns-${n}, serviceAccount: worker}`)
  const { of } = await examine(rig, clock, [`k8sTrust.allowedIdentities=[${list.join(',')}]`])
  t.match(of('rights'), /namespace ns-0, namespace ns-1, .* namespace ns-4 and 251 more$/)
  t.match(of('allow-list'), /^\[fail\] .* ns-0\/worker, .* ns-4\/worker and 251 more: no worker/)
})

test('an API server that does not report our rights fails, and other checks go on', async (t) => {
  const { rig, clock } = await ready(t)
  rig.api.setFault('accessReviews', { kind: 'status', status: 403 })
  const forbidden = await examine(rig, clock)
  t.match(
    forbidden.of('rights'),
    /^\[fail\] .*answered 403.* Bind the ClusterRole system:basic-user to all ServiceAccounts, as clusters do by default\.$/,
  )
  rig.api.setFault('accessReviews', { kind: 'status', status: 500 })
  const broken = await examine(rig, clock)
  t.match(broken.of('rights'), /^\[fail\] .*HTTP 500/)
  t.match(broken.of('reviews'), /^\[ok\]/)
  rig.api.setFault('accessReviews', { kind: 'rewrite', rewrite: () => ({}) })
  t.match((await examine(rig, clock)).of('rights'), /^\[fail\] rights: cannot create tokenreviews/)
})

test('reviews without an answer fail, a mere refusal of our token does not', async (t) => {
  const { rig, clock } = await ready(t)
  const reviews = async () => (await examine(rig, clock)).of('reviews')
  rig.api.setFault('tokenReviews', { kind: 'status', status: 500 })
  t.match(await reviews(), /^\[fail\] .*HTTP 500\. Check kubernetes\.apiServer/)
  rig.api.setFault('tokenReviews', { kind: 'status', status: 403 })
  t.match(
    await reviews(),
    /^\[fail\] .*answered 403.* Let the sidecar's ServiceAccount create tokenreviews/,
  )
  rig.api.setFault('tokenReviews', { kind: 'rewrite', rewrite: () => ({ kind: 'Status' }) })
  t.match(await reviews(), /^\[fail\] reviews: the answer is not a TokenReview\. Try again/)
  const saying = (error: string) => (review: ReviewBody) => ({ ...review, status: { error } })
  for (const error of ['[invalid bearer token, etcdserver: request timed out]', 'etcdserver: x']) {
    rig.api.setFault('tokenReviews', { kind: 'rewriteReview', rewrite: saying(error) })
    t.match(await reviews(), /^\[fail\] reviews: the API server could not decide: ".*etcdserver/)
  }
  rig.api.setFault('tokenReviews', {
    kind: 'rewriteReview',
    rewrite: saying(
      '[invalid bearer token, token audiences ["a"] is invalid for the target audiences ["b"]]',
    ),
  })
  t.match(await reviews(), /^\[ok\]/)
  const authenticated = (audiences: readonly string[]) => (review: ReviewBody) => ({
    ...review,
    status: { authenticated: true, user: {}, audiences },
  })
  rig.api.setFault('tokenReviews', { kind: 'rewriteReview', rewrite: authenticated([]) })
  t.match(
    await reviews(),
    /^\[fail\] .*ignores audiences: no worker can be admitted\. Use an authenticator that returns audiences/,
  )
  const ours = authenticated(['openclaw-gateway'])
  rig.api.setFault('tokenReviews', { kind: 'rewriteReview', rewrite: ours })
  t.match(
    await reviews(),
    /^\[ok\] reviews: the API server reviews tokens; it would also accept the sidecar's own token/,
  )
})

test('a clock that is fast or slow gets a warning, and fails where tokens are refused', async (t) => {
  const { rig, clock } = await ready(t)
  const clockOf = async (skewMs: number) => {
    const ours = new FakeClock(clock.now() + skewMs)
    const { of, exitCode } = await examine(rig, ours)
    t.equal(exitCode, of('clock').startsWith('[fail]') ? 69 : 0)
    return of('clock')
  }
  t.match(await clockOf(4000), /^\[ok\]/)
  t.match(await clockOf(-5000), /^\[ok\]/)
  t.match(
    await clockOf(30_000),
    /^\[warn\] clock: 29 s ahead of the API server's clock\. Synchronize the nodes' clocks/,
  )
  t.match(
    await clockOf(-30_000),
    /^\[warn\] clock: 30 s behind the API server's clock\. Synchronize/,
  )
  t.match(await clockOf(-60_000), /^\[warn\]/)
  t.match(
    await clockOf(-90_000),
    /^\[fail\] clock: 90 s behind the API server's clock, more than the 60 s tolerated: fresh tokens are refused\. Synchronize/,
  )
  t.match(await clockOf(300_000), /^\[fail\] clock: 299 s ahead of .* tokens expire too early/)
  rig.api.setFault('version', {
    kind: 'status',
    status: 200,
    body: { gitVersion: 'v1.33.0' },
    headers: { date: 'noon' },
  })
  t.equal(await clockOf(0), '', 'nothing is made up')
})

test('a token that the kubelet should have renewed gets a warning', async (t) => {
  const { rig, clock } = await ready(t)
  const ownToken = async (
    expiresInS: number,
    agoS: number,
    claims: Record<string, unknown> = {},
  ) => {
    const token = rig.api.mintToken({
      ...rig.api.sidecar,
      audiences: [rig.api.issuer],
      expiresInS,
      nowMs: clock.now() - agoS * 1000,
      claims,
    })
    writeFileSync(rig.tokenFile, token)
    const { of } = await examine(rig, clock)
    return of('own-token')
  }
  t.match(await ownToken(3600, 3200), /^\[ok\] .* valid for another 400 s$/)
  t.match(
    await ownToken(3600, 3300),
    /^\[warn\] own-token: it expires in 300 s and should have been renewed by now\. Mount it as a projected volume, not with subPath/,
  )
  const bound = (warnafter: number) => ({
    'kubernetes.io': {
      namespace: 'openclaw',
      serviceaccount: {
        name: 'openclaw-gateway',
        uid: rig.api.getServiceAccount('openclaw', 'openclaw-gateway')?.metadata.uid,
      },
      warnafter,
    },
  })
  const nowS = Math.floor(clock.now() / 1000)
  t.match(
    await ownToken(31_536_000, 7200, bound(nowS - 3600)),
    /should have been renewed 3600 s ago/,
    'stretched to a year',
  )
  t.match(await ownToken(31_536_000, 60, bound(nowS + 3547)), /^\[ok\] .* another 3547 s$/)
})

test('a token of another kind is accepted as it is', async (t) => {
  const { rig, clock } = await ready(t)
  rig.api.setFault('version', { kind: 'status', status: 200, body: { gitVersion: 'v1.35.4' } })
  writeFileSync(rig.tokenFile, 'opaque')
  t.match(
    (await examine(rig, clock)).of('own-token'),
    /^\[ok\] own-token: opaque: its expiry cannot be checked$/,
  )
})

test('a namespace that the running sidecar cannot watch is a warning that names it', async (t) => {
  const { rig, clock } = await ready(t, {
    set: [
      'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker}, {namespace: opneclaw, serviceAccount: "*"}]',
    ],
    prepare: (api) => api.setRbac({ namespaces: ['openclaw'] }),
  })
  // Its watch has to last for a moment before it counts.
  await clock.advanceAsync(1000)
  const { of, exitCode } = await examine(rig, clock)
  t.match(of('sidecar').split('\n').toReversed(), [
    /^\[ok\] sidecar: ready, 3 checks passed$/,
    /^\[warn\] sidecar: pods: namespace opneclaw: pods have not been listed yet\. Its workers cannot be admitted; all others can\. The log has the cause\.$/,
  ])
  t.equal(exitCode, 0)
  await clock.advanceAsync(1000)
  const told = rig.log.filter((line) => line.includes('a watch was interrupted'))
  t.equal(told.length, 1, 'one line for both of its watches')
  t.match(told[0], /"scopes":\["namespace opneclaw"\].*answered 403/)
})

test('a gateway that is away fails, and so does a sidecar that is not ready or not there', async (t) => {
  const { rig, clock } = await ready(t)
  await rig.gateway.close()
  const away = await examine(rig, clock)
  t.match(
    away.of('gateway'),
    /^\[fail\] gateway: nothing listens on 127\.0\.0\.1:\d+\. Start the gateway, or correct gateway\.url\.$/,
  )
  t.match(
    away.of('sidecar'),
    /^\[fail\] sidecar: not ready: gateway: nothing listens on .*\. Fix the other findings first; its log has the details\.$/,
  )
  t.equal(away.exitCode, 69)
  await rig.sidecar.drain()
  const gone = await examine(rig, clock)
  t.match(
    gone.of('sidecar'),
    /^\[fail\] sidecar: no sidecar answers at http:\/\/127\.0\.0\.1:\d+: .*ECONNREFUSED.*\. Start it, or run this in its container with its configuration\.$/,
  )
})

test('a drained sidecar, another server and an unknown port are distinguished', async (t) => {
  const { rig, clock } = await ready(t)
  const other = createServer((_request, response) => response.end('hello'))
  t.teardown(() => other.close())
  await once(other.listen(0, '127.0.0.1'), 'listening')
  const { port } = other.address() as AddressInfo
  t.match(
    (await examine(rig, clock, [`listen.admin=127.0.0.1:${port}`])).of('sidecar'),
    /^\[fail\] .* is not the sidecar\. Correct listen\.admin, or stop the server that uses its port\.$/,
  )
  const anywhere = await examine(rig, clock, ['listen.admin=127.0.0.1:0'])
  t.match(anywhere.of('sidecar'), /^\[warn\] sidecar: listen\.admin has port 0/)
  t.equal(anywhere.exitCode, 0)

  const token = rig.mint({ pod: rig.createPod() })
  const worker = await rig.connect({ token })
  if (!worker.ok) throw new Error('refused')
  rig.gateway.connections.forEach((connection) => connection.pause())
  worker.socket.pause()
  const drained = rig.sidecar.drain()
  t.match(
    (await examine(rig, clock)).of('sidecar'),
    /^\[fail\] sidecar: not ready: serving: draining\. It accepts no workers until its container is restarted\.$/,
  )
  worker.socket.terminate()
  await clock.advanceAsync(60_000)
  await drained
})

test('it says so if nobody can tell whether others reach the ports', async (t) => {
  const { rig, clock } = await ready(t, { set: ['listen.admin=[::]:0', 'listen.workers=[::]:0'] })
  const admin = `listen.admin=[::]:${new URL(rig.adminUrl).port}`
  const alone = (await examine(rig, clock, [admin, `listen.workers=[::]:${rig.port}`])).of(
    'addresses',
  )
  t.match(
    alone,
    /^\[warn\] addresses: no network but loopback is here: nobody can tell whether the kubelet's probes reach listen\.admin\. Run this in/m,
  )
  t.match(alone, /^\[warn\] .* whether workers reach listen\.workers\. /m)
  const free = (await examine(rig, clock, [admin, 'listen.workers=[::]:0'])).of('addresses')
  t.match(free, /^\[warn\] addresses: listen\.workers has port 0: nobody can tell/m)
  const absent = await examine(rig, clock, ['listen.admin=[::]:1', 'listen.workers=[::]:0'])
  t.match(
    absent.of('sidecar'),
    /^\[fail\] .* http:\/\/localhost:1: .*ECONNREFUSED 127\.0\.0\.1:1; .*ECONNREFUSED ::1:1\. /,
  )
  t.equal(absent.of('addresses'), '', 'it is said once')
})

test('what the configuration allows on purpose is a warning, not a failure', async (t) => {
  const { rig, clock } = await ready(t)
  const warned = async (...set: readonly string[]) => {
    const { lines, exitCode } = await examine(rig, clock, set)
    t.equal(exitCode, 0, set.join(' '))
    // Here the sidecar is on loopback, without TLS.
    return lines.filter((line) => /^\[warn\] (?!tls:|addresses:)/.test(line))
  }
  t.strictSame(await warned(), [])
  const cases: readonly (readonly [setting: string, warning: RegExp])[] = [
    [
      'k8sTrust.sourceAddress=report',
      /source-address: .* stolen from a pod works from any address\. Set it to enforce/,
    ],
    [
      'k8sTrust.allowHostNetwork=true',
      /host-network: .* has the address of the pod\. Set it to false/,
    ],
    [
      'gateway.allowRemoteGateway=true',
      /gateway: gateway\.allowRemoteGateway is true: .* is not encrypted\. Run/,
    ],
    ['review.cacheTtl=61s', /verdicts: review\.cacheTtl is 61s: .*\. Set it to 60s or less\./],
    ['k8sTrust.enabled=false', /trust: k8sTrust\.enabled is false: every worker is refused\. Set/],
    [
      'k8sTrust.allowedIdentities=[{namespace: "*", serviceAccount: "*"}]',
      /configuration: k8sTrust\.allowedIdentities\[0\]: Every pod/,
    ],
  ]
  for (const [setting, warning] of cases) {
    const found = await warned(setting)
    t.equal(found.length, 1, setting)
    t.match(found[0], warning)
  }
})

test('the examination ends within 20 s, whatever hangs', async (t) => {
  const { rig, clock } = await ready(t)
  // Accepts connections and sends nothing.
  const silent = createServer(() => {})
  t.teardown(() => silent.close().closeAllConnections())
  await once(silent.listen(0, '127.0.0.1'), 'listening')
  const { port } = silent.address() as AddressInfo
  rig.api.setFault('*', { kind: 'hang' })
  rig.api.clearFaults('version')
  const ours = new FakeClock(clock.now())
  for (const isVersionAnswered of [false, true]) {
    const asked = rig.api.counts.tokenReviews
    const versions = rig.api.counts.version
    if (isVersionAnswered) {
      rig.api.setFault('version', { kind: 'status', status: 200, body: { gitVersion: 'v1.35.4' } })
    }
    const outcome = examine(rig, ours, [`listen.admin=127.0.0.1:${port}`])
    if (isVersionAnswered) await rig.api.requested('tokenReviews', asked + 1)
    else await rig.api.requested('version', versions + 1)
    await ours.advanceAsync(20_000)
    const { failed, exitCode } = await outcome
    t.equal(exitCode, 69)
    const names = failed.map((line) => /^\[fail\] ([a-z-]+): /.exec(line)?.[1])
    t.strictSame(
      names,
      isVersionAnswered
        ? ['signing-keys', 'rights', 'reviews', 'sidecar']
        : ['api-server', 'sidecar'],
    )
    t.match(failed.at(-1), /no answer within 5000 ms/)
  }
})

test('no finding breaks its line, reaches the terminal, or quotes a token', async (t) => {
  const what = 'first\nsecond\u001b[31m\u009b31m\r\u2028third'
  t.equal(
    describeFinding({ level: 'fail', name: 'x', what, remedy: 'Do.' }),
    '[fail] x: first second [31m 31m third. Do.',
  )
  const { rig, clock } = await ready(t)
  rig.api.setFault('version', {
    kind: 'rewrite',
    rewrite: () => ({ gitVersion: 'v1\n[ok] forged: line' }),
  })
  const forged = await examine(rig, clock)
  t.notOk(forged.lines.some((line) => line.startsWith('[ok] forged')))
  const token = (await rig.readFile(rig.tokenFile)).trim()
  t.notMatch(forged.stdout, token)
  t.notMatch(forged.stdout, /eyJ/)
})

test('in a real process it examines the sidecar next to it', async (t) => {
  const rig = await startServeRig({ workers: 0, admin: 0 })
  t.teardown(() => rig.close())
  const examination = async (...set: readonly string[]) => {
    const admin = `listen.admin=${new URL(rig.adminUrl).host}`
    const args = [admin, ...set].map((each) => `--set=${each}`)
    const command = startSidecarProcess(['doctor', `--config=${rig.configFile}`, ...args])
    const exit = await command.exited
    return { ...exit, stdout: command.stdout.text, stderr: command.stderr.text }
  }
  rig.createPod('worker-a', '127.0.0.11')
  const good = await examination()
  t.match(good, { code: 0, stdout: /\n13 ok, 3 warnings, 0 failed\n$/, stderr: '' })
  const bad = await examination('gateway.url=ws://127.0.0.1:1')
  t.match(bad, {
    code: 69,
    stdout: /^\[fail\] gateway: nothing listens on 127\.0\.0\.1:1\. /,
    stderr: '',
  })
})
