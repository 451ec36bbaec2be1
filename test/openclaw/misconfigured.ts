/** A real gateway that is set up wrongly: the operator is told what to change, and no worker is. */

import assert from 'node:assert/strict'
import { after } from 'node:test'
import { join } from 'node:path'
import { test, testUnless } from './bounded-test.ts'
import { startGateway } from './gateway.ts'
import type { ProductRig } from './product-rig.ts'

type Gateway = Awaited<ReturnType<typeof startGateway>>

/** A gateway in trusted-proxy mode does not start without any. */
const ANOTHER_PROXY = '192.0.2.7'
const UNTRUSTED =
  "the gateway answered 403 (proxy_attribution_required). Set gateway.trustedProxies to the sidecar's address alone " +
  "(127.0.0.1 and ::1) in the gateway's own configuration."
const WRONG_SECRET = {
  token: 'gateway.auth.secretFile: the gateway refuses this secret (AUTH_TOKEN_MISMATCH). Mount',
  'trusted-proxy':
    'gateway.auth.secretFile: the gateway refuses this secret (AUTH_PASSWORD_MISMATCH). Mount',
}

export const testMisconfigured = (rig: ProductRig): void => {
  let gateway: Gateway | undefined
  after(() => gateway?.stop('SIGKILL'))

  /** Another gateway, which does not know that a proxy stands before it. */
  const startUntrusting = async (): Promise<Gateway> =>
    startGateway({
      product: rig.run.gateway,
      mode: rig.mode,
      port: rig.ports.gateway + 1,
      home: join(rig.directory, 'untrusting-gateway'),
      users: [rig.user],
      trustedProxies: [ANOTHER_PROXY],
    })

  const untrusted =
    'a gateway that trusts another proxy: readiness, log and doctor name the cure, a worker comes back'
  testUnless(rig.lacks.proxyAttribution, untrusted, async () => {
    gateway = await startUntrusting()
    const sidecar = await rig.startSidecarBeside({
      gatewayUrl: gateway.url,
      expected: `[-] gateway: ${UNTRUSTED}\n`,
    })
    try {
      const pod = rig.createPod('untrusting')
      const node = await rig.openLightNode(pod, { url: besideUrl(pod.address, rig) })
      await node.connect()
      const { code, reason } = await node.closed
      assert.deepEqual({ code, reason }, { code: 1013, reason: 'gateway_refused' })
      assert.doesNotMatch(JSON.stringify(node.frames), /attribution|trustedProxies/u)
      assert.ok(sidecar.said().includes(UNTRUSTED))
      const found = await sidecar.doctor()
      assert.ok(found.includes(`[fail] gateway-upgrade: ${UNTRUSTED}`), found)
    } finally {
      await sidecar.stop()
    }
  })

  const secret =
    'a wrong secret of the gateway: readiness, log and doctor name it, a worker comes back'
  test(secret, async () => {
    gateway ??= await startUntrusting()
    const said = WRONG_SECRET[rig.mode]
    const sidecar = await rig.startSidecarBeside({
      gatewayUrl: gateway.url,
      secret: 'not the secret of the gateway',
      expected: `[-] operator: ${said}`,
    })
    try {
      assert.ok(sidecar.said().includes(said))
      const pod = rig.createPod('wrong-secret')
      const node = await rig.openLightNode(pod, { url: besideUrl(pod.address, rig) })
      await node.connect()
      assert.equal((await node.closed).code, 1013)
      const found = await sidecar.doctor()
      assert.ok(found.includes(`[fail] gateway-operator: ${said}`), found)
    } finally {
      await sidecar.stop()
    }
  })
}

const besideUrl = (address: string, { ports }: ProductRig): string =>
  `ws://${address}:${ports.workers + 1}`
