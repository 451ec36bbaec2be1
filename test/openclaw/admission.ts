/** Real nodes with nothing but their ServiceAccount token: listed, usable, and only as far as allowed. */

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { waitForProcess } from '../kit/wait.ts'
import { test } from './bounded-test.ts'
import type { ListedNode } from './operator.ts'
import { RESTRICTED, type Stage } from './stage.ts'

const WHICH = { bins: ['uname'] }

const byName = (a: string, b: string): number => a.localeCompare(b)
const bins = (invoked: { readonly payload?: unknown }) =>
  (invoked.payload as { bins?: Record<string, string> } | undefined)?.bins

export const testAdmission = (stage: Stage): void => {
  const status = async (): Promise<readonly ListedNode[]> => {
    const text = await stage.gateway.cli('nodes', 'status', '--json')
    return (JSON.parse(text) as { nodes: readonly ListedNode[] }).nodes
  }
  test('real nodes with only a ServiceAccount token are listed by their pod names, nobody approves', async () => {
    const pods = ['worker-exec', 'worker-env'].map((name) => stage.createPod(name))
    const restricted = stage.createPod('worker-restricted', RESTRICTED)
    const [first, second] = pods
    assert.ok(first !== undefined && second !== undefined)
    await stage.startRealNode(first, { recipe: 'exec-secret-ref' })
    await stage.startRealNode(second, { recipe: 'env-wrapper' })
    await stage.startRealNode(restricted, { recipe: 'exec-secret-ref' })
    for (const { name } of [...pods, restricted]) await stage.connected(name)

    const listed = (await status()).filter(({ connected }) => connected === true)
    assert.deepEqual(listed.map(({ displayName }) => displayName ?? '').toSorted(byName), [
      'worker-env',
      'worker-exec',
      'worker-restricted',
    ])
    assert.deepEqual(await stage.operator().pendingDevices(), [])
    const pending = await stage.operator().call<{ pending: unknown[] }>('node.pair.list')
    assert.deepEqual(pending.pending, [])
  })

  test('system.which answers through the command line of the gateway', async () => {
    for (const name of ['worker-exec', 'worker-env', 'worker-restricted']) {
      const args = ['--node', name, '--command', 'system.which', '--params', JSON.stringify(WHICH)]
      const invoked = JSON.parse(
        await stage.gateway.cli('nodes', 'invoke', ...args, '--json'),
      ) as object
      assert.match(bins(invoked)?.['uname'] ?? '', /uname$/u, name)
    }
  })

  test('system.run runs on the node where it is allowed', async () => {
    const { nodeId } = await stage.connected('worker-exec')
    const command = ['/bin/sh', '-c', 'echo "ran with $HOME"']
    const ran = await stage
      .operator()
      .invoke(nodeId, 'system.run', { command, runId: randomUUID() })
    assert.match(JSON.stringify(ran.payload), /ran with .*nodes\/worker-exec/u)
  })

  test('a command that is not in allowedCommands is absent and cannot be invoked', async () => {
    const { nodeId, commands } = await stage.connected('worker-restricted')
    assert.deepEqual(commands, ['system.which'])
    const command = ['/bin/sh', '-c', 'echo ran']
    const params = { command, runId: randomUUID() }
    await assert.rejects(stage.operator().invoke(nodeId, 'system.run', params))
  })

  test('a surface that widens later is approved as far as it is allowed', async () => {
    const pod = stage.createPod('worker-widens')
    const narrow = await stage.connectLightNode(pod, { commands: ['system.which'] })
    await stage.connected(pod.name)
    narrow.end()
    await stage.connectLightNode(pod, { commands: ['system.which', 'system.run'] })
    const isWide = async () => {
      const nodes = await stage.operator().nodes()
      const node = nodes.find(({ displayName }) => displayName === pod.name)
      return node?.connected === true && node.commands?.includes('system.run') === true && node
    }
    const wide = await stage.explained(pod.name, () =>
      waitForProcess('the wider surface is listed', 30_000, isWide),
    )
    const invoked = await stage.operator().invoke(wide.nodeId, 'system.which', WHICH)
    assert.match(bins(invoked)?.['uname'] ?? '', /uname$/u)
  })

  test('hello-ok brings a worker no device token', async () => {
    const node = await stage.connectLightNode(stage.createPod('worker-no-token'))
    const hello = node.frames.find(({ payload }) => payload?.['type'] === 'hello-ok')
    assert.ok(hello !== undefined)
    assert.doesNotMatch(JSON.stringify(hello), /deviceToken|issuedAtMs/u)
    node.end()
  })

  test('a token in a header is enough, without one in the frame', async () => {
    const pod = stage.createPod('worker-bearer')
    const headers = { authorization: `Bearer ${pod.mint()}` }
    const node = await stage.connectLightNode(pod, { headers, auth: {} })
    assert.ok(await stage.usable(pod.name))
    node.end()
  })

  test('both forms of the device proof are taken', async () => {
    for (const version of ['v2', 'v3'] as const) {
      const node = await stage.connectLightNode(stage.createPod(`worker-${version}`), { version })
      node.end()
    }
  })
}
