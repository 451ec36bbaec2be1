/** A new policy is in force at once, ends what it no longer allows, and nothing else. */

import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { test } from 'tap'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import { startSidecarProcess } from '../kit/sidecar-process.ts'
import { createAuthority } from '../kit/authority.ts'
import { startKubeApi } from '../kit/kube-api.ts'
import { waitUntil } from '../kit/wait.ts'
import { mountVolume } from '../kit/volume.ts'
import { codeOf, echoes, startWatchedRig, type WatchedRig } from '../kit/watched-rig.ts'
import { closed, connectWorker, openWorker } from '../kit/worker-client.ts'

const allow = (...entries: readonly string[]) =>
  `k8sTrust.allowedIdentities=[${entries.map((entry) => `{namespace: openclaw, ${entry}}`).join(', ')}]`
const A = 'serviceAccount: openclaw-worker'
const B = 'serviceAccount: other'

const load = (set: readonly string[]) =>
  loadConfig({
    env: {},
    flags: ['gateway.protocol=stream', ...set],
    readFile: () => '',
  })

const reload = ({ sidecar }: WatchedRig, ...set: readonly string[]) =>
  sidecar.reload(() => load(set))

const reloads = async (rig: WatchedRig) => {
  const metrics = await rig.metrics()
  const count = (outcome: string) =>
    metrics.get(`openclaw_k8s_config_reloads_total{outcome="${outcome}"}`)
  return { ok: count('ok'), failed: count('failed') }
}

const isLastSuccessful = async (rig: WatchedRig) => {
  const metrics = await rig.metrics()
  return metrics.get('openclaw_k8s_config_last_reload_successful') === 1
}

test('a removed identity loses its streams, a kept one keeps them, and a new one can enter', async (t) => {
  const rig = await startWatchedRig(t, { set: [allow(A, B)], watches: 4 })
  const a = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  const b = await rig.openStream(
    rig.createPod('worker-b', '127.0.0.12', { serviceAccount: 'other' }),
  )
  t.same(await reloads(rig), { ok: 0, failed: 0 })
  reload(rig, allow(B, 'serviceAccount: third'))
  t.same(await closed(a.socket), { code: 1008, reason: 'identity_not_allowed' })
  t.ok(await echoes(b.socket))
  t.equal(codeOf(await rig.connect(a.token)), 'identity_not_allowed')
  t.equal(codeOf(await rig.connect(b.token, '127.0.0.12')), 'ok')
  await waitUntil(() => rig.audit.some(({ code }) => code === 'identity_not_allowed'))

  const third = rig.createPod('worker-c', '127.0.0.13', { serviceAccount: 'third' })
  t.equal(codeOf(await rig.connect(rig.mint({ pod: third }), '127.0.0.13')), 'ok')
  t.same(await reloads(rig), { ok: 1, failed: 0 })

  // A wider list watches differently, and still knows which pods are there.
  reload(rig, allow("serviceAccount: '*'"))
  t.equal(codeOf(await rig.connect(a.token)), 'ok')
  t.ok(await echoes(b.socket))
  rig.api.deletePod('openclaw', 'worker-b')
  t.equal((await closed(b.socket)).reason, 'pod_deleted')
})

test('a pod that goes while its watch is exchanged for another is not overlooked', async (t) => {
  const rig = await startWatchedRig(t, { set: [allow(A)] })
  const { api } = rig
  const staying = await rig.openStream(rig.createPod('staying', '127.0.0.11'))
  const going = await rig.openStream(rig.createPod('going', '127.0.0.12'))
  api.pause('lists')
  reload(rig, allow("serviceAccount: 'openclaw-*'"))
  await waitUntil(() => api.openWatches() === 0)
  api.deletePod('openclaw', 'going')
  t.equal(codeOf(await rig.connect(going.token, '127.0.0.12')), 'pod_not_found')
  t.equal(codeOf(await rig.connect(staying.token)), 'ok', 'a live GET stands in for the watch')
  // The held answer was decided before the deletion; only the watch after it reports it.
  api.release('lists')
  t.equal((await closed(going.socket)).reason, 'pod_deleted')
  t.ok(await echoes(staying.socket))
})

test('a role that is no longer allowed loses its streams, and switching trust off ends all streams', async (t) => {
  const both = `${A}, allowedRoles: [node, observer]`
  const rig = await startWatchedRig(t, { set: [allow(both)] })
  const token = rig.mint({ pod: rig.createPod('worker-a', '127.0.0.11') })
  const open = async (role: string) =>
    openWorker({
      url: rig.url,
      token,
      localAddress: '127.0.0.11',
      headers: { 'X-OpenClaw-Role': role },
    })
  const [node, observer] = [await open('node'), await open('observer')]

  rig.api.pauseReviews()
  const pending = connectWorker({
    url: rig.url,
    token: rig.mint({ pod: rig.api.getPod('openclaw', 'worker-a')! }),
    localAddress: '127.0.0.11',
    headers: { 'X-OpenClaw-Role': 'node' },
  })
  await rig.api.reviewArrived()
  reload(rig, allow(both))
  rig.api.releaseReviews()
  t.equal(codeOf(await pending), 'ok', 'one at the door has no role yet, and is not sent away')

  reload(rig, allow(`${A}, allowedRoles: [node]`))
  t.same(await closed(observer), { code: 1008, reason: 'role_not_allowed' })
  t.ok(await echoes(node))
  reload(rig, allow(A), 'k8sTrust.enabled=false')
  t.same(await closed(node), { code: 1008, reason: 'trust_disabled' })
  t.equal(codeOf(await rig.connect(token)), 'trust_disabled')
  await waitUntil(() => rig.api.openWatches() === 0)
  reload(rig, allow(A))
  t.equal(codeOf(await rig.connect(token)), 'ok', 'and on again')
})

test('a policy that changes during an admission applies to it', async (t) => {
  const rig = await startWatchedRig(t)
  const pod = rig.createPod('worker-a', '127.0.0.11')
  rig.api.pauseReviews()
  const pending = rig.connect(rig.mint({ pod }))
  await rig.api.reviewArrived()
  reload(rig, allow(B))
  t.equal(codeOf(await pending), 'identity_not_allowed', 'at once')
  rig.api.releaseReviews()
  t.equal(rig.gateway.handshakes.length, 0)
})

test('an invalid configuration changes nothing, and is counted', async (t) => {
  const rig = await startWatchedRig(t)
  const { socket, token } = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  for (const bad of [
    ['k8sTrust.allowedIdentities=[]'],
    ['k8sTrust.nonsense=1'],
    [allow(B), 'drain.window=x'],
  ]) {
    rig.sidecar.reload(() => load(bad))
  }
  rig.sidecar.reload(() => {
    throw new Error('the file is not there')
  })
  t.same(await reloads(rig), { ok: 0, failed: 4 })
  t.ok(await echoes(socket))
  t.equal(codeOf(await rig.connect(token)), 'ok')
})

test('the rules of a reload are in force for the next worker, and its limits for open streams', async (t) => {
  const rig = await startWatchedRig(t)
  const { socket, token } = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  const away = '127.0.0.99'
  t.equal(codeOf(await rig.connect(token, away)), 'source_address_mismatch')
  reload(rig, allow(A), 'k8sTrust.sourceAddress=report')
  t.equal(codeOf(await rig.connect(token, away)), 'ok')
  reload(rig, allow(A), 'k8sTrust.maxTokenLifetime=1s')
  t.equal(codeOf(await rig.connect(token)), 'token_lifetime_exceeded')
  t.equal(codeOf(await rig.connect(token, away)), 'token_lifetime_exceeded')
  t.ok(await echoes(socket))
  reload(rig, allow(A), 'k8sTrust.maxSessionAge=1s')
  await rig.clock.advanceAsync(2000)
  t.same(await closed(socket), { code: 1012, reason: 'session_age_exceeded' })
})

test('a stricter rule about addresses ends the streams it would not let in', async (t) => {
  const loose = ['k8sTrust.sourceAddress=report', 'k8sTrust.allowHostNetwork=true']
  const rig = await startWatchedRig(t, { set: loose })
  const { socket, token } = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  const away = await rig.connect(token, '127.0.0.99')
  const host = await rig.openStream(rig.createPod('worker-b', '127.0.0.12', { hostNetwork: true }))
  if (!away.ok) throw new Error('refused')
  const ending = await rig.openStream(rig.createPod('worker-c', '127.0.0.13'))
  rig.api.deletePod('openclaw', 'worker-c', { gracePeriodSeconds: 30 })
  await waitUntil(async () => codeOf(await rig.connect(ending.token, '127.0.0.13')) !== 'ok')
  reload(rig, allow(A), 'k8sTrust.allowHostNetwork=true')
  t.same(await closed(away.socket), { code: 1008, reason: 'source_address_mismatch' })
  t.ok(await echoes(host.socket))
  reload(rig, allow(A))
  t.same(await closed(host.socket), { code: 1008, reason: 'host_network_not_allowed' })
  t.ok(await echoes(socket))
  t.ok(await echoes(ending.socket), 'a terminating pod keeps its grace')
})

test('renewed certificates are used from the next handshake on, and bad ones never', async (t) => {
  const directory = t.testdir()
  const [old, fresh] = [await createAuthority('old'), await createAuthority('fresh')]
  const issue = async (authority: typeof old) =>
    authority.issue({ commonName: 'sidecar', hosts: ['localhost'] })
  const [certFile, keyFile] = [join(directory, 'tls.crt'), join(directory, 'tls.key')]
  const write = async ({ cert, key }: Awaited<ReturnType<typeof issue>>) => {
    await writeFile(certFile, cert)
    await writeFile(keyFile, key)
  }
  await write(await issue(old))
  const rig = await startWatchedRig(t, {
    set: [`listen.tls={certFile: ${certFile}, keyFile: ${keyFile}}`],
  })
  const token = rig.mint({ pod: rig.createPod('worker-a', '127.0.0.11') })
  const url = rig.url.replace('127.0.0.1', 'localhost')
  const socket = await openWorker({ url, token, localAddress: '127.0.0.11', ca: old.cert })
  const isShown = async ({ cert }: typeof old) => {
    const probe = connectTls({ port: rig.port, servername: 'localhost', ca: cert })
    probe.on('error', () => {})
    const event = await Promise.race([
      once(probe, 'secureConnect').then(() => true),
      once(probe, 'close').then(() => false),
    ]).catch(() => false)
    probe.destroy()
    return event
  }
  t.ok(await isShown(old))
  const expiry = async () =>
    (await rig.metrics()).get(
      'openclaw_k8s_certificate_expiry_timestamp_seconds{file="certificate"}',
    )
  const first = await expiry()
  const notAfter = new Date(Date.now() + 90 * 86_400_000)
  await write(await fresh.issue({ commonName: 'sidecar', hosts: ['localhost'], notAfter }))
  reload(rig, allow(A))
  t.ok(await isShown(fresh))
  t.notOk(await isShown(old))
  const endOf = (pem: string) => new X509Certificate(pem).validToDate.getTime() / 1000
  t.notSame(await expiry(), first)
  t.equal(await expiry(), endOf(await rig.readFile(certFile)))
  t.ok(await echoes(socket), 'an open stream keeps its own')

  // A certificate without its key, as when files are swapped one by one.
  await writeFile(certFile, (await issue(old)).cert)
  reload(rig, allow(A))
  t.same(await reloads(rig), { ok: 1, failed: 1 })
  t.notOk(await isLastSuccessful(rig))
  t.ok(await isShown(fresh))

  // Neither waits for the other.
  await write(await issue(old))
  reload(rig, 'k8sTrust.allowedIdentities=[]')
  t.ok(await isShown(old), 'renewed under a configuration that is not valid')
  t.ok(await echoes(socket))
  t.same(await reloads(rig), { ok: 1, failed: 2 })
  t.notOk(await isLastSuccessful(rig))
  await writeFile(certFile, 'nonsense')
  reload(rig, allow(B))
  t.ok(await isShown(old))
  t.same(await closed(socket), { code: 1008, reason: 'identity_not_allowed' })
  t.same(await reloads(rig), { ok: 1, failed: 3 })
  await rm(keyFile)
  reload(rig, allow(A))
  t.ok(await isShown(old))
  await write(await issue(fresh))
  reload(rig, allow(A))
  t.ok(await isShown(fresh))
  t.ok(await isLastSuccessful(rig))
})

test('a reload says which file the next start would miss, and takes the policy all the same', async (t) => {
  const rig = await startWatchedRig(t, { set: [allow(A)] })
  const { socket } = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  reload(rig, allow(B), 'gateway.deviceSeedFile=/nowhere/seed')
  t.same(await closed(socket), { code: 1008, reason: 'identity_not_allowed' })
  t.notOk(await isLastSuccessful(rig))
  reload(rig, allow(A))
  t.ok(await isLastSuccessful(rig))
})

test('a running sidecar follows the swaps of its mounted configuration, one after the other', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'auth-sidecar-reload-'))
  const api = await startKubeApi()
  const gateway = await startGatewayStub()
  const { caFile, tokenFile } = await api.files(join(directory, 'own'))
  const textOf = (serviceAccount: string) =>
    JSON.stringify({
      listen: { workers: '127.0.0.1:0', admin: '127.0.0.1:0' },
      gateway: { url: gateway.url, protocol: 'stream' },
      kubernetes: { apiServer: api.url, caFile, tokenFile },
      k8sTrust: { allowedIdentities: [{ namespace: 'openclaw', serviceAccount }] },
    })
  const volume = t.testdir()
  const swap = await mountVolume(volume, { 'config.yaml': textOf('openclaw-worker') })
  const sidecar = startSidecarProcess(['serve', '--config', join(volume, 'config.yaml')])
  t.teardown(async () => {
    sidecar.signal('SIGKILL')
    await sidecar.exited
    await gateway.close()
    await api.stop()
    await rm(directory, { recursive: true })
  })
  const { workers } = await sidecar.listening()
  await api.watchesOpened(2)
  const pods = ['openclaw-worker', 'other'].map((serviceAccount, nth) =>
    api.createPod({
      namespace: 'openclaw',
      name: serviceAccount,
      serviceAccount,
      ips: [`127.0.0.${11 + nth}`],
      nodeName: 'node-1',
    }),
  )
  const open = async (nth: number) =>
    openWorker({
      url: `ws://${workers}`,
      localAddress: `127.0.0.${11 + nth}`,
      token: api.mintToken({ pod: pods[nth]! }),
    })
  const first = await open(0)
  await swap({ 'config.yaml': textOf('other') })
  t.same(await closed(first), { code: 1008, reason: 'identity_not_allowed' })
  const second = await open(1)
  await swap({ 'config.yaml': 'k8sTrust: {' })
  await sidecar.stderr.wait(({ msg }) => String(msg).includes('is not valid'))
  t.ok(await echoes(second))
  await swap({ 'config.yaml': textOf('openclaw-worker') })
  t.same(await closed(second), { code: 1008, reason: 'identity_not_allowed' })
  await open(0).then((socket) => socket.terminate())
})

test('a reload that comes after the stop reads nothing and starts nothing', async (t) => {
  const rig = await startWatchedRig(t, { set: [allow(A)] })
  await rig.sidecar.stop()
  let isLoaded = false
  rig.sidecar.reload(() => {
    isLoaded = true
    return load([allow(B)])
  })
  t.notOk(isLoaded)
  t.ok(rig.log.some((line) => line.includes('configuration not reloaded: the sidecar is stopping')))
})
