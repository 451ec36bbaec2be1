/** The policy in force decides what a node may offer: at its connect, later, and after a reload. */

import { test, type Test } from 'tap'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { startOpenClawRig, type OpenClawRig } from '../kit/openclaw-rig.ts'
import { waitUntil } from '../kit/wait.ts'
import { connectFrame, createDevice } from '../kit/light-node.ts'

const allow = (...commands: readonly string[]) =>
  `k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker, allowedCommands: [${commands.map((each) => `'${each}'`).join(', ')}]}]`

const start = async (t: Test, ...commands: readonly string[]) => {
  const rig = await startOpenClawRig({ set: [allow(...commands)] })
  t.teardown(rig.stop)
  const reload = (...next: readonly string[]) =>
    rig.sidecar.reload(() => loadConfig({ env: {}, flags: [allow(...next)], readFile: () => '' }))
  return { rig, reload }
}

type Told = Readonly<Record<'commands' | 'caps' | 'permissions' | 'computerUse', unknown>>

/** What the gateway learned about nodes, in order. */
const toldTo = (rig: OpenClawRig) =>
  rig.gateway.received
    .map(({ data }) => JSON.parse(data.toString()) as { params?: Told & { role?: string } })
    .flatMap(({ params }) => (params?.role === 'node' ? [params] : []))

test('a narrower list of commands ends the sessions that offer more, and they come back filtered', async (t) => {
  const { rig, reload } = await start(t, '*')
  const run = await rig.startNode('worker-a', '127.0.0.11', {
    commands: ['system.run', 'system.which'],
  })
  const which = await rig.startNode('worker-b', '127.0.0.12', { commands: ['system.which'] })
  reload('system.*', '*', 'system.*')
  reload('system.w*', 'system.run')
  t.equal(run.socket.readyState, 1, 'another list that allows the same')
  reload('system.which')
  t.match(await run.closed, { code: 1012, reason: 'policy_changed' })
  t.equal(which.socket.readyState, 1, 'who offers no more than that stays')
  await waitUntil(() => rig.audit.some(({ code }) => code === 'policy_changed'))

  const again = await rig.openNode({
    auth: { token: run.token },
    commands: ['system.run', 'system.which'],
  })
  t.equal((await again.connect())?.ok, true)
  t.strictSame(toldTo(rig).at(-1)?.commands, ['system.which'])
  reload('*')
  t.equal(again.socket.readyState, 1, 'a wider list ends nobody')
  t.equal(which.socket.readyState, 1)
})

test('a surface is approved by the list in force, not by the list at the start of its session', async (t) => {
  const { rig, reload } = await start(t, 'system.*', 'terminal.*')
  const node = await rig.startNode('worker-a', '127.0.0.11', { commands: ['system.which'] })
  const [nodeId = ''] = rig.devices.paired.keys()
  reload('system.*')
  t.equal(node.socket.readyState, 1)
  const wide = { requestId: 'wide', nodeId, commands: ['system.which', 'terminal.upload'] }
  const good = { requestId: 'good', nodeId, commands: ['system.which', 'system.run'] }
  rig.devices.pending.set('wide', wide)
  rig.devices.pending.set('good', good)
  const operator = [...rig.gateway.connections].find(
    ({ handshake }) => handshake.headers['x-forwarded-for'] === undefined,
  )
  operator?.send(JSON.stringify({ type: 'event', event: 'node.pair.requested', payload: {} }))
  await rig.devices.called('node.pair.approve', 1)
  t.strictSame([...rig.devices.pending.keys()], ['wide'])
  t.ok(rig.log.some((line) => line.includes('a node offers commands that are not allowed')))
  reload('system.which')
  t.match(await node.closed, { reason: 'policy_changed' }, 'what was approved later counts too')
})

test('everything not allowed is withheld: permissions, computer use, and capabilities of any name', async (t) => {
  const { rig } = await start(t, 'system.*')
  const offer = {
    caps: ['system', 'voice', 'constructor', '__proto__', 'hasOwnProperty'],
    permissions: { 'screen.record': true, 'system.run': true },
    computerUse: { contractVersion: 2 },
  }
  const node = await rig.startNode('worker-a', '127.0.0.11', {
    commands: ['system.which', 'camera.snap'],
    offer,
  })
  t.equal(node.answer?.ok, true)
  const told = toldTo(rig).at(-1)
  t.strictSame(told?.commands, ['system.which'])
  t.strictSame(told?.caps, ['system'])
  t.strictSame(told?.permissions, { 'system.run': true })
  t.equal(told?.computerUse, undefined)

  const open = await start(t, '*')
  const free = await open.rig.startNode('worker-a', '127.0.0.11', { offer })
  t.equal(free.answer?.ok, true)
  t.match(toldTo(open.rig).at(-1), offer, 'unless everything is allowed')
})

test('a computerUse too deep to serialize is refused as malformed, and the gateway is not asked', async (t) => {
  const { rig } = await start(t, '*')
  const token = rig.mint({ pod: rig.createPod() })
  const say = async (computerUse: string) => {
    const open = await rig.openNode()
    const { nonce, ts } = open.challenge
    const params = { device: createDevice(), auth: { token }, offer: { computerUse: 0 } }
    const text = JSON.stringify(connectFrame(nonce, ts, params))
    open.socket.send(text.replace('"computerUse":0', `"computerUse":${computerUse}`))
    return open
  }
  await rig.untilReady()
  const handshakes = rig.gateway.handshakes.length
  for (const levels of [17, 9000]) {
    const open = await say(`${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`)
    t.match(await open.closed, { code: 1008, reason: 'connect_malformed' })
  }
  t.equal(rig.gateway.handshakes.length, handshakes)
  const good = await say('{"a":1}')
  t.match(await good.next(({ type }) => type === 'res'), { ok: true })
})
