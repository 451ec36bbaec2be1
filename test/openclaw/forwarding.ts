/** What every connection of the whole suite looked like to the gateway. */

import assert from 'node:assert/strict'
import { test, testUnless } from './bounded-test.ts'
import { GATEWAY_SECRET } from './gateway.ts'
import {
  framesBeforeHello,
  hasBootstrapToken,
  headerValues,
  isAskedToPair,
  isLetIn,
  roleOf,
} from './relay.ts'
import type { ProductRig } from './product-rig.ts'

const LASTING = 'worker-exec'

export const testForwarding = (rig: ProductRig): void => {
  /** Of a real node that enrolled in the first test and came back after every restart. */
  const connectionsOfLasting = () => {
    const address = rig.realNodes.find(({ name }) => name === LASTING)?.address ?? ''
    return rig.relay.connections.filter((connection) =>
      headerValues(connection, 'x-forwarded-for').includes(address),
    )
  }

  const { bootstrapToken } = rig.lacks
  testUnless(
    bootstrapToken,
    'new devices are enrolled with a bootstrap token, known ones come without',
    () => {
      const [first, ...later] = connectionsOfLasting().filter(isLetIn)
      assert.ok(first !== undefined && hasBootstrapToken(first))
      assert.ok(later.length > 0)
      assert.ok(!later.some(hasBootstrapToken))
    },
  )

  const whyNoApproval =
    bootstrapToken === undefined ? 'the gateway mints bootstrap tokens' : undefined
  testUnless(
    whyNoApproval,
    'new devices are enrolled by an approval of their request, known ones come without',
    () => {
      const [first, ...later] = connectionsOfLasting()
      assert.ok(first !== undefined && isAskedToPair(first))
      assert.ok(later.filter(isLetIn).length > 1)
      assert.ok(!later.some(isAskedToPair))
      assert.ok(![first, ...later].some(hasBootstrapToken))
    },
  )

  test('the gateway sees exactly one X-Forwarded-For on every worker connection, a pod address', () => {
    const workers = rig.relay.connections.filter((connection) => roleOf(connection) === 'node')
    assert.ok(workers.length > 0)
    for (const connection of workers) {
      const values = headerValues(connection, 'x-forwarded-for')
      assert.equal(values.length, 1, connection.head.join('\n'))
      assert.match(values[0] ?? '', /^10\.244\.1\.\d+$/u)
      assert.equal(headerValues(connection, 'x-forwarded-user').length, 1)
      assert.equal(headerValues(connection, 'forwarded').length, 0)
      assert.equal(headerValues(connection, 'origin').length, 0)
    }
  })

  test('only the operator channel of the sidecar goes without one', () => {
    for (const connection of rig.relay.connections) {
      if (headerValues(connection, 'x-forwarded-for').length > 0) continue
      // A connection that ended before its connect carried nothing of a worker either.
      assert.ok([undefined, 'operator'].includes(roleOf(connection)), connection.head.join('\n'))
    }
  })

  test('no worker byte reached the gateway before hello-ok', () => {
    for (const connection of rig.relay.connections) {
      const frames = framesBeforeHello(connection).filter(({ opcode }) => opcode === 1)
      assert.ok(frames.length <= 1, frames.map(({ text }) => text).join('\n'))
    }
  })

  test('no ServiceAccount token went to the gateway, and no secret to the log', () => {
    const toGateway = JSON.stringify(rig.relay.connections)
    const said = rig.sidecar.said()
    for (const token of rig.minted) {
      // The signature makes it a token; its claims can be logged.
      const signature = token.slice(token.lastIndexOf('.') + 1)
      assert.ok(!toGateway.includes(signature), 'the gateway saw a token')
      assert.ok(!said.includes(signature), 'the log shows a token')
    }
    assert.ok(!said.includes(GATEWAY_SECRET))
  })

  test('the audit has a line for every pod that was let in', () => {
    const admitted = rig.sidecar.audit().filter(({ event }) => event === 'k8s-auth-success')
    for (const name of ['worker-exec', 'worker-env', 'worker-restricted', 'crowd-0', 'churn-99']) {
      const line = admitted.find(({ displayName }) => displayName === name)
      assert.ok(line !== undefined, name)
      assert.match(String(line['remoteIp']), /^10\.244\.1\.\d+$/u)
    }
  })
}
