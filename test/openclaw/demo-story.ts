/** The story of the demonstration: two real nodes, then four, a command on each, one pod gone. */

import { waitForProcess } from '../kit/wait.ts'
import { raisePods } from '../kit/namespace.ts'
import type { ListedNode } from './operator.ts'
import { startProductRig, type ProductRig, type RigPod } from './product-rig.ts'
import { PINNED_RUN } from './suite-plan.ts'

const FIRST = ['openclaw-worker-0', 'openclaw-worker-1']
const MORE = ['openclaw-worker-2', 'openclaw-worker-3']
const START_LIMIT_MS = 90_000

type Listed = ListedNode & { readonly remoteIp?: string; readonly approvalState?: string }

const say = (text: string): void => {
  process.stdout.write(`${text}\n`)
}
const show = (output: string): void => say(output.replaceAll(/^/gmu, '    '))

/** The table of `nodes status` is made for wide terminals: the same, shortened. */
const showStatus = async (rig: ProductRig): Promise<void> => {
  say('$ openclaw nodes status --json')
  const text = await rig.gateway.cli('nodes', 'status', '--json')
  for (const node of (JSON.parse(text) as { nodes: readonly Listed[] }).nodes) {
    const state = node.connected === true ? 'connected' : 'away'
    const commands = `${node.commands?.length ?? 0} commands`
    const { displayName = '', remoteIp = '' } = node
    show(`${displayName}  ${remoteIp}  ${node.approvalState ?? ''}  ${state}  ${commands}`)
  }
}

const tell = async (rig: ProductRig): Promise<void> => {
  const started: { readonly pod: RigPod; readonly stop: () => Promise<void> }[] = []
  const scaleTo = async (names: readonly string[]): Promise<void> => {
    for (const name of names) {
      const pod = rig.createPod(name)
      const node = await rig.startRealNode(pod, { recipe: 'exec-secret-ref' })
      started.push({ pod, stop: node.stop })
    }
    for (const name of names) await rig.usable(name, START_LIMIT_MS)
  }

  say('\nTwo workers start: `openclaw node run`, as shipped, each with its ServiceAccount token.')
  await scaleTo(FIRST)
  await showStatus(rig)

  say('\nScaled to four. Nobody approves anything.')
  await scaleTo(MORE)
  await showStatus(rig)

  say('\nA command on each.')
  for (const name of [...FIRST, ...MORE]) {
    const call = ['nodes', 'invoke', '--node', name, '--command', 'system.which']
    say(`$ openclaw ${call.join(' ')} --params '{"bins":["uname"]}'`)
    const text = await rig.gateway.cli(...call, '--params', '{"bins":["uname"]}', '--json')
    show(JSON.stringify((JSON.parse(text) as { payload?: unknown }).payload))
  }

  const last = started.at(-1)
  if (last === undefined) return
  say(`\nThe pod ${last.pod.name} is deleted: its stream closes, its device record goes.`)
  rig.deletePod(last.pod)
  const deleted = performance.now()
  await waitForProcess('the record is gone', 30_000, async () => {
    return (await rig.devicesNamed(last.pod.name)).length === 0
  })
  say(`Gone from the gateway after ${Math.round(performance.now() - deleted)} ms.`)
  await last.stop()
  await showStatus(rig)

  say('\nWhat the audit tells:')
  for (const { event, displayName, remoteIp, code } of rig.sidecar.audit()) {
    const why = typeof code === 'string' ? ` (${code})` : ''
    show(`${event} ${String(displayName)} from ${String(remoteIp)}${why}`)
  }
}

const isOnce = process.argv.includes('--once')
raisePods()
say('A cluster API, a real OpenClaw gateway and the sidecar come up …')
const rig = await startProductRig(PINNED_RUN)
await tell(rig)
if (!isOnce) {
  say('\nEverything stays up until Ctrl-C.')
  await new Promise((resolve) => process.once('SIGINT', resolve).once('SIGTERM', resolve))
}
await rig.stop()
process.exit(0)
