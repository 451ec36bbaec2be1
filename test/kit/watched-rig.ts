/** A rig on a fake clock whose pod watch is up, with the questions that tests about pods ask. */

import type { WebSocket } from 'ws'
import { FakeClock } from './fake-clock.ts'
import type { Pod } from './kube-store.ts'
import type { PodRequest } from './kube-workloads.ts'
import { startRig, type RigOptions } from './rig.ts'
import { nextMessage, type Connected, type Refused } from './worker-client.ts'

type Scope = { readonly teardown: (stop: () => unknown) => unknown }

export type WatchedRig = Awaited<ReturnType<typeof startWatchedRig>>

/** Pods and ServiceAccounts of the one allowed ServiceAccount. */
const WATCHES = 2

export const startWatchedRig = async (
  t: Scope,
  { watches = WATCHES, ...options }: RigOptions & { readonly watches?: number } = {},
) => {
  const clock = new FakeClock()
  // A cache reads a time of 0 as no time.
  clock.advance(1)
  // Time is often moved faster than a pong travels.
  const set = ['limits.idlePing=1h', 'limits.failuresPerAddress=0', ...(options.set ?? [])]
  const rig = await startRig({ clock, ...options, set })
  t.teardown(() => rig.stop())
  const { api } = rig
  await api.watchesOpened(watches)

  const createPod = (name: string, ip: string, changes: Partial<PodRequest> = {}) =>
    api.createPod({
      namespace: 'openclaw',
      name,
      serviceAccount: 'openclaw-worker',
      ips: [ip],
      nodeName: 'node-1',
      ...changes,
    })
  const connect = async (token: string, localAddress = '127.0.0.11') =>
    rig.connect({ token, localAddress })
  const openStream = async (pod: Pod, token = rig.mint({ pod })) => {
    const outcome = await connect(token, pod.status.podIP ?? '127.0.0.11')
    if (!outcome.ok) throw new Error(`refused: ${codeOf(outcome)}`)
    return { socket: outcome.socket, token, pod }
  }
  return { ...rig, clock, createPod, connect, openStream }
}

/** `ok`, or the code of the refusal. An admitted worker hangs up. */
export const codeOf = (outcome: Connected | Refused): string => {
  if (!outcome.ok) return (outcome.body as { error: { type: string } }).error.type
  outcome.socket.terminate()
  return 'ok'
}

/** Whether a stream still carries bytes both ways. */
export const echoes = async (socket: WebSocket): Promise<boolean> => {
  socket.send('are you there')
  return (await nextMessage(socket)).text === 'are you there'
}
