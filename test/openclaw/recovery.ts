/** What goes away comes back: gateway, sidecar, API server and tokens; each time a command answers. */

import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { waitForProcess } from '../kit/wait.ts'
import { test } from './bounded-test.ts'
import { createAuthority } from '../kit/authority.ts'
import { PAUSING_CODES, type RealNode } from './real-node.ts'
import { TRUST, type Stage, type StagePod } from './stage.ts'

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

export const testRecovery = (stage: Stage): void => {
  const oneRecordEach = async (names: readonly string[]): Promise<void> => {
    for (const name of names) assert.equal((await stage.devicesNamed(name)).length, 1, name)
  }

  let stale: { readonly pod: StagePod; readonly node: RealNode; readonly expiresAtMs: number }

  test('a sidecar killed and started again has its nodes back, with no extra device record', async () => {
    await stage.sidecar.stop('SIGKILL')
    await stage.sidecar.start()
    for (const name of LASTING) await stage.usable(name, BACK_LIMIT_MS)
    await oneRecordEach(LASTING)
  })

  test('a real node with a short-lived token works, which then grows stale in the background', async () => {
    const pod = stage.createPod('worker-stale')
    const startS = Math.ceil(stage.slowestStartMs() / 1000)
    const lifeS = Math.max(STALE_LIFE_S_MIN, startS * STALE_LIFE_STARTS)
    const expiresAtMs = Date.now() + lifeS * 1000
    const node = await stage.startRealNode(pod, { token: pod.mint(lifeS) })
    await stage.usable(pod.name)
    stale = { pod, node, expiresAtMs }
  })

  test('a real node shows its token in CF_ACCESS_CLIENT_SECRET over the TLS port', async () => {
    const pod = stage.createPod('worker-cf')
    const authority = await createAuthority('sidecar')
    const request = { commonName: 'openclaw-gateway', hosts: [pod.address] }
    const { cert, key } = await authority.issue(request)
    const tls = {
      certFile: join(stage.directory, 'tls.crt'),
      keyFile: join(stage.directory, 'tls.key'),
    }
    await writeFile(tls.certFile, cert)
    await writeFile(tls.keyFile, key)
    const sidecar = await stage.startSidecarBeside({ tls })
    const node = await stage.startRealNode(pod, {
      recipe: 'cf-header',
      port: stage.ports.workers + 1,
      tlsFingerprint: new X509Certificate(cert).fingerprint256,
    })
    try {
      await stage.usable(pod.name)
    } finally {
      await node.stop()
      await sidecar.stop()
    }
  })

  test('while the API server is away new workers are asked to retry, and enter when it is back', async () => {
    const pod = stage.createPod('worker-outage')
    await stage.api.stop()
    const refused = await stage.openLightNode(pod)
    assert.notEqual((await refused.connect())?.ok, true)
    assert.ok([1012, 1013].includes((await refused.closed).code))
    const real = await stage.startRealNode(pod)
    await waitForProcess('the real node was refused', BACK_LIMIT_MS, () =>
      /closed|failed/u.test(real.said()),
    )
    await stage.api.start()
    await stage.usable(pod.name, BACK_LIMIT_MS)
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

    await stage.operator().close()
    assert.equal((await stage.gateway.stop('SIGTERM')).code, 0)
    await stage.gateway.start()
    await stage.renewOperator()
    assert.equal((await node.exitAfter(0)).code, 1)
    for (const name of [...LASTING, pod.name]) await stage.usable(name, BACK_LIMIT_MS)
    assert.equal(node.exits.length, 1)
    await oneRecordEach([...LASTING, pod.name])
    await node.stop()
  })

  test('an expired token reconnects its live pod within the grace, and not without one', async () => {
    await stage.sidecar.stop()
    await stage.sidecar.start({ ...TRUST, expiredTokenReconnectGrace: '10m' })
    const pod = stage.createPod('worker-grace')
    const expiresAtMs = Date.now() + SHORT_LIFE_S * 1000
    const auth = { token: pod.mint(SHORT_LIFE_S) }
    const first = await stage.connectLightNode(pod, { auth })
    await expired(expiresAtMs)
    first.end()
    const second = await stage.connectLightNode(pod, { auth })
    await stage.usable(pod.name)
    second.end()

    await stage.sidecar.stop()
    await stage.sidecar.start()
    const third = await stage.openLightNode(pod, { auth })
    const refusal = await third.connect()
    assert.equal(refusal?.error?.details?.['code'], 'AUTH_TOKEN_MISMATCH')
  })

  test('pods that went while no sidecar ran are forgotten at its start', async () => {
    const pod = stage.createPod('orphan')
    const node = await stage.connectLightNode(pod)
    await stage.sidecar.stop('SIGKILL')
    await node.closed
    stage.deletePod(pod)
    assert.equal((await stage.devicesNamed(pod.name)).length, 1)
    await stage.sidecar.start()
    await waitForProcess('the record of the orphan is gone', 30_000, async () => {
      return (await stage.devicesNamed(pod.name)).length === 0
    })
  })

  test('without ephemeral sessions the record stays when its pod goes', async () => {
    await stage.sidecar.stop()
    await stage.sidecar.start({ ...TRUST, ephemeralSessions: false })
    const [kept, marker] = [stage.createPod('kept'), stage.createPod('marker')]
    const node = await stage.connectLightNode(kept)
    stage.deletePod(kept)
    assert.equal((await node.closed).code, 1008)
    const later = await stage.connectLightNode(marker)
    await stage.usable(marker.name)
    later.end()
    assert.equal((await stage.devicesNamed(kept.name)).length, 1)
    await stage.sidecar.stop()
    await stage.sidecar.start()
  })

  test('no real node of the suite was ever made to wait for its operator', () => {
    assertNeverPaused(stage.realNodes)
  })
}
