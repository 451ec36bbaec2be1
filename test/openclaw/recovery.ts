/** Gateway, sidecar, API server and tokens go away and come back; each time a command answers again. */

import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { waitForProcess } from '../kit/wait.ts'
import { test, testUnless } from './bounded-test.ts'
import { createAuthority } from '../kit/authority.ts'
import { PAUSING_CODES, type RealNode } from './real-node.ts'
import { TRUST, type ProductRig, type RigPod } from './product-rig.ts'

/** Nodes come back within their own backoff, which ends at 30 s. */
const BACK_LIMIT_MS = 120_000
const SHORT_LIFE_S = 8
/** Long enough for a real node to start and connect, as slow as the machine may be. */
const STALE_LIFE_S_MIN = 20
const STALE_LIFE_STARTS = 2

const expired = (atMs: number) =>
  waitForProcess('the token has expired', atMs - Date.now() + 5000, () => Date.now() > atMs)

/** The real nodes of the first tests, which are still running. */
const LASTING = ['worker-exec', 'worker-env', 'worker-restricted']

const assertNeverPaused = (nodes: readonly RealNode[]): void => {
  for (const node of nodes) {
    for (const code of PAUSING_CODES)
      assert.ok(!node.said().includes(code), `${node.name}: ${code}`)
    assert.doesNotMatch(node.said(), /waiting for operator action/u, node.name)
  }
}

export const testRecovery = (rig: ProductRig): void => {
  const oneRecordEach = async (names: readonly string[]): Promise<void> => {
    for (const name of names) assert.equal((await rig.devicesNamed(name)).length, 1, name)
  }

  let stale: { readonly pod: RigPod; readonly node: RealNode; readonly expiresAtMs: number }

  test('a sidecar killed and started again has its nodes back, with no extra device record', async () => {
    await rig.sidecar.stop('SIGKILL')
    await rig.sidecar.start()
    for (const name of LASTING) await rig.usable(name, BACK_LIMIT_MS)
    await oneRecordEach(LASTING)
  })

  test('a real node with a short-lived token works, which then grows stale in the background', async () => {
    const pod = rig.createPod('worker-stale')
    const startS = Math.ceil(rig.slowestStartMs() / 1000)
    const lifeS = Math.max(STALE_LIFE_S_MIN, startS * STALE_LIFE_STARTS)
    const expiresAtMs = Date.now() + lifeS * 1000
    const node = await rig.startRealNode(pod, { token: pod.mint(lifeS) })
    await rig.usable(pod.name)
    stale = { pod, node, expiresAtMs }
  })

  const cfTest = 'a real node shows its token in CF_ACCESS_CLIENT_SECRET over the TLS port'
  testUnless(rig.lacks.accessHeaders, cfTest, async () => {
    const pod = rig.createPod('worker-cf')
    const authority = await createAuthority('sidecar')
    const request = { commonName: 'openclaw-gateway', hosts: [pod.address] }
    const { cert, key } = await authority.issue(request)
    const tls = {
      certFile: join(rig.directory, 'tls.crt'),
      keyFile: join(rig.directory, 'tls.key'),
    }
    await writeFile(tls.certFile, cert)
    await writeFile(tls.keyFile, key)
    const sidecar = await rig.startSidecarBeside({ tls })
    const node = await rig.startRealNode(pod, {
      recipe: 'cf-header',
      port: rig.ports.workers + 1,
      tlsFingerprint: new X509Certificate(cert).fingerprint256,
    })
    try {
      await rig.usable(pod.name)
    } finally {
      await node.stop()
      await sidecar.stop()
    }
  })

  test('while the API server is away new workers are asked to retry, and enter when it is back', async () => {
    const pod = rig.createPod('worker-outage')
    await rig.api.stop()
    const refused = await rig.openLightNode(pod)
    assert.notEqual((await refused.connect())?.ok, true)
    assert.ok([1012, 1013].includes((await refused.closed).code))
    const real = await rig.startRealNode(pod)
    await waitForProcess('the real node was refused', BACK_LIMIT_MS, () =>
      /closed|failed/u.test(real.said()),
    )
    await rig.api.start()
    await rig.usable(pod.name, BACK_LIMIT_MS)
    assert.equal(real.exits.length, 0, 'an outage makes no node exit')
    assertNeverPaused([real])
    await real.stop()
  })

  test('a gateway restart: valid tokens come back by themselves, stale ones by their supervisor', async () => {
    const { pod, node, expiresAtMs } = stale
    await expired(expiresAtMs)
    assert.equal(node.exits.length, 0, 'an open stream outlives its token')
    // As the kubelet rotates: the file has the new token, the process still the old one.
    await node.writeToken(pod.mint())

    await rig.operator().close()
    assert.equal((await rig.gateway.stop('SIGTERM')).code, 0)
    await rig.gateway.start()
    await rig.renewOperator()
    assert.equal((await node.exitAfter(0)).code, 1)
    for (const name of [...LASTING, pod.name]) await rig.usable(name, BACK_LIMIT_MS)
    assert.equal(node.exits.length, 1)
    await oneRecordEach([...LASTING, pod.name])
    await node.stop()
  })

  test('an expired token reconnects its live pod within the grace, and not without one', async () => {
    await rig.sidecar.stop()
    await rig.sidecar.start({ ...TRUST, expiredTokenReconnectGrace: '10m' })
    const pod = rig.createPod('worker-grace')
    const expiresAtMs = Date.now() + SHORT_LIFE_S * 1000
    const auth = { token: pod.mint(SHORT_LIFE_S) }
    const first = await rig.connectLightNode(pod, { auth })
    await expired(expiresAtMs)
    first.end()
    const second = await rig.connectLightNode(pod, { auth })
    await rig.usable(pod.name)
    second.end()

    await rig.sidecar.stop()
    await rig.sidecar.start()
    const third = await rig.openLightNode(pod, { auth })
    const refusal = await third.connect()
    assert.equal(refusal?.error?.details?.['code'], 'AUTH_TOKEN_MISMATCH')
  })

  test('pods that left while no sidecar ran are removed at its start', async () => {
    const pod = rig.createPod('orphan')
    const node = await rig.connectLightNode(pod)
    await rig.sidecar.stop('SIGKILL')
    await node.closed
    rig.deletePod(pod)
    assert.equal((await rig.devicesNamed(pod.name)).length, 1)
    await rig.sidecar.start()
    await waitForProcess('the record of the orphan is gone', 30_000, async () => {
      return (await rig.devicesNamed(pod.name)).length === 0
    })
  })

  test('without ephemeral sessions the record stays when its pod goes', async () => {
    await rig.sidecar.stop()
    await rig.sidecar.start({ ...TRUST, ephemeralSessions: false })
    const [kept, marker] = [rig.createPod('kept'), rig.createPod('marker')]
    const node = await rig.connectLightNode(kept)
    rig.deletePod(kept)
    assert.equal((await node.closed).code, 1008)
    const later = await rig.connectLightNode(marker)
    await rig.usable(marker.name)
    later.end()
    assert.equal((await rig.devicesNamed(kept.name)).length, 1)
    await rig.sidecar.stop()
    await rig.sidecar.start()
  })

  test('no real node of the suite was ever made to wait for its operator', () => {
    assertNeverPaused(rig.realNodes)
  })
}
