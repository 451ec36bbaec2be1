/** Surfaces: one that the gateway refuses, or that cannot be read, keeps no other waiting. */

import { Duplex } from 'node:stream'
import type { Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'tap'
import { CallRefused } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/operator-channel.ts'
import { Sessions } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/sessions.ts'
import { Surfaces } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/surfaces.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const RETRY_MS = 3000

const settle = async () => {
  for (let turns = 0; turns < 4; turns += 1) await turn()
}

/**
 * Two live sessions, `a` and `b`, whose surfaces wait; the gateway refuses to approve that of `a`, and
 * lists it as `surface` says.
 */
const setUp = (surface = {}) => {
  const clock = new FakeClock()
  const sessions = new Sessions()
  for (const podName of ['a', 'b']) {
    const session = sessions.open(podName, {
      pod: { namespace: 'openclaw', serviceAccount: 'openclaw-worker', podName },
      podUid: `uid-${podName}`,
      allowedCommands: () => ['*'],
      revoke: () => {},
    })
    session.bindSocket(new Duplex() as unknown as Socket)
  }
  const waiting = new Set(['a', 'b'])
  const faults: unknown[] = []
  let lists = 0
  const surfaces = new Surfaces({
    sessions,
    clock,
    channel: {
      async call(method, params) {
        if (method === 'node.pair.list') {
          lists += 1
          return {
            pending: [...waiting].map((name) => ({
              requestId: name,
              nodeId: name,
              ...(name === 'a' ? surface : {}),
            })),
          }
        }
        const { requestId } = params as { readonly requestId?: string }
        if (method !== 'node.pair.approve' || requestId === undefined) return {}
        if (requestId === 'a') throw new CallRefused(method, 'FORBIDDEN', 'missing scope')
        waiting.delete(requestId)
        return {}
      },
    },
    onWithheld: () => {},
    onDropped: () => {},
    onFault: (error) => faults.push(error),
  })
  return { clock, faults, surfaces, waiting, lists: () => lists }
}

test('a surface that the gateway refuses keeps no other waiting, and is asked for again', async (t) => {
  const { clock, faults, surfaces, waiting, lists } = setUp()
  surfaces.check()
  await settle()
  t.strictSame([...waiting], ['a'])
  t.match(faults, [{ name: 'CallRefused' }])
  await clock.advanceAsync(RETRY_MS)
  await settle()
  t.equal(lists(), 2)
  t.equal(faults.length, 2)
  surfaces.stop()
})

for (const surface of [{ permissions: { camera: 'yes' } }, { commands: 'all' }, { nodeId: 7 }]) {
  test(`an entry that cannot be read keeps no other waiting: ${JSON.stringify(surface)}`, async (t) => {
    const { faults, surfaces, waiting } = setUp(surface)
    surfaces.check()
    await settle()
    t.strictSame([...waiting], ['a'])
    t.match(faults, [{ name: 'Fault', message: "the gateway's node list cannot be read" }])
    surfaces.stop()
  })
}
