/** Real nodes with nothing but their ServiceAccount token: listed, usable, and only as far as allowed. */

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { waitForProcess } from '../kit/wait.ts'
import { test, testUnless } from './bounded-test.ts'
import type { ListedNode } from './operator.ts'
import { RESTRICTED, type ProductRig } from './product-rig.ts'

const WHICH = { bins: ['uname'] }

const byName = (a: string, b: string): number => a.localeCompare(b)
const bins = (invoked: { readonly payload?: unknown }) =>
  (invoked.payload as { bins?: Record<string, string> } | undefined)?.bins

export const testAdmission = (rig: ProductRig): void => {
  const status = async (): Promise<readonly ListedNode[]> => {
    const text = await rig.gateway.cli('nodes', 'status', '--json')
    return (JSON.parse(text) as { nodes: readonly ListedNode[] }).nodes
  }
  test('real nodes with only a ServiceAccount token are listed by their pod names, without any approval', async () => {
    const pods = ['worker-exec', 'worker-env'].map((name) => rig.createPod(name))
    const restricted = rig.createPod('worker-restricted', RESTRICTED)
    const [first, second] = pods
    assert.ok(first !== undefined && second !== undefined)
    await rig.startRealNode(first, { recipe: 'exec-secret-ref' })
    await rig.startRealNode(second, { recipe: 'env-wrapper' })
    await rig.startRealNode(restricted, { recipe: 'exec-secret-ref' })
    for (const { name } of [...pods, restricted]) await rig.connected(name)

    const listed = (await status()).filter(({ connected }) => connected === true)
    assert.deepEqual(listed.map(({ displayName }) => displayName ?? '').toSorted(byName), [
      'worker-env',
      'worker-exec',
      'worker-restricted',
    ])
    assert.deepEqual(await rig.operator().pendingDevices(), [])
    const pending = await rig.operator().call<{ pending: unknown[] }>('node.pair.list')
    assert.deepEqual(pending.pending, [])
  })

  test('system.which answers through the command line of the gateway', async () => {
    for (const name of ['worker-exec', 'worker-env', 'worker-restricted']) {
      const args = ['--node', name, '--command', 'system.which', '--params', JSON.stringify(WHICH)]
      const invoked = JSON.parse(
        await rig.gateway.cli('nodes', 'invoke', ...args, '--json'),
      ) as object
      assert.match(bins(invoked)?.['uname'] ?? '', /uname$/u, name)
    }
  })

  test('system.run runs on the node where it is allowed', async () => {
    const { nodeId } = await rig.connected('worker-exec')
    const command = ['/bin/sh', '-c', 'echo "ran with $HOME"']
    const ran = await rig.operator().invoke(nodeId, 'system.run', { command, runId: randomUUID() })
    assert.match(JSON.stringify(ran.payload), /ran with .*nodes\/worker-exec/u)
  })

  test('a command that is not in allowedCommands is absent and cannot be invoked', async () => {
    const { nodeId, commands } = await rig.connected('worker-restricted')
    assert.deepEqual(commands, ['system.which'])
    const command = ['/bin/sh', '-c', 'echo ran']
    const params = { command, runId: randomUUID() }
    await assert.rejects(rig.operator().invoke(nodeId, 'system.run', params))
  })

  const widens = 'a surface that widens later is approved as far as it is allowed'
  testUnless(rig.lacks.liveSurface, widens, async () => {
    const pod = rig.createPod('worker-widens')
    const narrow = await rig.connectLightNode(pod, { commands: ['system.which'] })
    await rig.connected(pod.name)
    narrow.end()
    await rig.connectLightNode(pod, { commands: ['system.which', 'system.run'] })
    const isWide = async () => {
      const nodes = await rig.operator().nodes()
      const node = nodes.find(({ displayName }) => displayName === pod.name)
      return node?.connected === true && node.commands?.includes('system.run') === true && node
    }
    const wide = await rig.explained(pod.name, () =>
      waitForProcess('the wider surface is listed', 30_000, isWide),
    )
    const invoked = await rig.operator().invoke(wide.nodeId, 'system.which', WHICH)
    assert.match(bins(invoked)?.['uname'] ?? '', /uname$/u)
  })

  test('hello-ok brings a worker no device token', async () => {
    const node = await rig.connectLightNode(rig.createPod('worker-no-token'))
    const hello = node.frames.find(({ payload }) => payload?.['type'] === 'hello-ok')
    assert.ok(hello !== undefined)
    assert.doesNotMatch(JSON.stringify(hello), /deviceToken|issuedAtMs/u)
    node.end()
  })

  test('a token in a header is enough, without one in the frame', async () => {
    const pod = rig.createPod('worker-bearer')
    const headers = { authorization: `Bearer ${pod.mint()}` }
    const node = await rig.connectLightNode(pod, { headers, auth: {} })
    assert.ok(await rig.usable(pod.name))
    node.end()
  })

  test('both forms of the device proof are accepted', async () => {
    for (const version of ['v2', 'v3'] as const) {
      const node = await rig.connectLightNode(rig.createPod(`worker-${version}`), { version })
      node.end()
    }
  })
  testUnless(rig.lacks.protocol3, 'a node of protocol 3 is usable', async () => {
    const pod = rig.createPod('worker-protocol-3')
    const node = await rig.connectLightNode(pod, { protocols: [3, 3] })
    assert.ok(await rig.usable(pod.name))
    node.end()
  })
}
