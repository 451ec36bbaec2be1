/** Worlds of several namespaces: one sidecar watches them all, and some are not as they should be. */

import { readFileSync } from 'node:fs'
import type { Test } from 'tap'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import type { KubeApi } from './kube-api.ts'
import { runUntil } from './run-clock.ts'
import { sidecarSettings } from './sidecar-settings.ts'
import { SeededRandom } from './soak.ts'
import { waitUntil } from './wait.ts'
import { codeOf, echoes, startWatchedRig, type WatchedRig } from './watched-rig.ts'
import { closed } from './worker-client.ts'

/** What a namespace may be like. A missing one answers empty lists, as a deleted one does. */
export const STATES = ['healthy', 'missing', 'forbidden', 'slow', 'flapping'] as const
/** When it becomes so: before the sidecar starts, while it runs, or before a reload adds it. */
export const PHASES = ['start', 'running', 'reload'] as const
export type State = (typeof STATES)[number]
export type Phase = (typeof PHASES)[number]

const ACCOUNT = 'openclaw-worker'
/** Always allowed and always healthy, so that there is somebody to suffer. */
const HOME = 'openclaw'
/** Longer than the first try of a list that is never answered. */
const TRIED_MS = 20_000
/** A list that is never answered holds the sidecar back for 5 s. */
const READY_STEP_MS = 1000
const REVOKED_MS_MAX = 1000
const TOKEN_S = 600

const namespaceOf = (index: number) => `team-${index}`
const addressOf = (namespace: string) =>
  `127.0.0.${namespace === HOME ? 11 : 20 + Number(namespace.at(-1))}`
const healthyOf = (states: readonly State[]) => [
  HOME,
  ...states.flatMap((state, index) => (state === 'healthy' ? [namespaceOf(index)] : [])),
]
const allow = (namespaces: readonly string[]) =>
  `k8sTrust.allowedIdentities=[${namespaces
    .map((namespace) => `{namespace: ${namespace}, serviceAccount: ${ACCOUNT}}`)
    .join(', ')}]`

const createPod = (api: KubeApi, namespace: string) =>
  api.createPod({
    namespace,
    name: 'worker',
    serviceAccount: ACCOUNT,
    ips: [addressOf(namespace)],
    nodeName: 'node-1',
  })

/** Makes the namespaces what the world says they are. */
const befall = (api: KubeApi, states: readonly State[]): void => {
  for (const [index, state] of states.entries()) {
    const namespace = namespaceOf(index)
    if (state === 'missing') {
      api.deletePod(namespace, 'worker', { gracePeriodSeconds: 0 })
      api.deleteServiceAccount(namespace, ACCOUNT)
    }
    if (state === 'slow') {
      for (const route of ['lists', 'watches'] as const) {
        api.setFault(route, { kind: 'hang' }, { namespace })
      }
    }
    if (state === 'flapping') {
      api.setFault('watches', { kind: 'halfBody', ending: 'cut' }, { namespace })
    }
  }
  const isForbidden = (index: number) => states[index] === 'forbidden'
  const names = states.map((_, index) => index).filter((index) => !isForbidden(index))
  api.setRbac({ namespaces: [HOME, ...names.map(namespaceOf)] })
  api.dropWatches()
}

const readyz = async (rig: WatchedRig) => (await fetch(`${rig.adminUrl}/readyz?verbose`)).text()
const isReady = async (rig: WatchedRig) => (await fetch(`${rig.adminUrl}/readyz`)).ok
const tokenOf = (rig: WatchedRig, namespace: string) => {
  const pod = rig.api.getPod(namespace, 'worker') ?? createPod(rig.api, namespace)
  return rig.mint({ pod, expiresInS: TOKEN_S })
}
const open = async (rig: WatchedRig, namespace: string) => {
  const token = tokenOf(rig, namespace)
  const outcome = await runUntil(rig.clock, rig.connect(token, addressOf(namespace)))
  if (!outcome.ok) throw new Error(`${namespace}: ${codeOf(outcome)}`)
  return outcome.socket
}

/** Starts in the phase's own way, and ends with the world's namespaces as they are to be. */
const enter = async (t: Test, states: readonly State[], phase: Phase) => {
  const names = states.map((_, index) => namespaceOf(index))
  const settings = ['k8sTrust.maxWatchStaleness=2s']
  const first = phase === 'reload' ? [HOME] : [HOME, ...names]
  const rig = await startWatchedRig(t, {
    set: [...settings, allow(first)],
    prepare(api) {
      for (const namespace of [HOME, ...names]) createPod(api, namespace)
      if (phase === 'start') befall(api, states)
    },
  })
  const { api, clock, sidecar, tokenFile } = rig
  await runUntil(
    clock,
    waitUntil(() => isReady(rig)),
    READY_STEP_MS,
  )
  if (phase !== 'start') befall(api, states)
  if (phase === 'reload') {
    const place = { gateway: rig.gateway, api, tokenFile, caFile: tokenFile }
    const flags = [...sidecarSettings(place), ...settings, allow([HOME, ...names])]
    const readFile = (path: string) => readFileSync(path, 'utf8')
    sidecar.reload(() => loadConfig({ env: {}, flags, readFile }))
    // A worker that comes before the first list is asked to come back.
    const areListed = async () => {
      const text = await readyz(rig)
      return healthyOf(states).every((name) => !text.includes(`[!] pods: namespace ${name},`))
    }
    await runUntil(clock, waitUntil(areListed))
  }
  return rig
}

const assertUnharmed = async (t: Test, rig: WatchedRig, healthy: readonly string[]) => {
  const { api, clock } = rig
  t.ok(await isReady(rig), 'ready')
  for (const namespace of healthy) {
    const socket = await open(rig, namespace)
    const deletedAt = clock.monotonic()
    api.deletePod(namespace, 'worker', { gracePeriodSeconds: 0 })
    const end = await runUntil(clock, closed(socket))
    t.equal(end.reason, 'pod_deleted', namespace)
    t.ok(clock.monotonic() - deletedAt <= REVOKED_MS_MAX, `${namespace}: revoked in time`)
    createPod(api, namespace)
  }
}

/** The healthy ones admit, revoke in time and keep the sidecar ready, whatever the others are like. */
export const live = async (t: Test, states: readonly State[], phase: Phase): Promise<void> => {
  const healthy = healthyOf(states)
  const rig = await enter(t, states, phase)
  const { clock } = rig
  await assertUnharmed(t, rig, healthy)
  const streams = await Promise.all(healthy.map((namespace) => open(rig, namespace)))
  clock.stepWall(TOKEN_S * 1000 + 1000)
  for (let passed = 0; passed < TRIED_MS; passed += 1000) await clock.advanceAsync(1000)
  for (const stream of streams) t.ok(await echoes(stream), 'its token expired; its watch is well')
  await assertUnharmed(t, rig, [HOME])
  const bad = states.flatMap((state, index) =>
    ['forbidden', 'slow'].includes(state) ? [namespaceOf(index)] : [],
  )
  const text = await readyz(rig)
  for (const namespace of bad) t.match(text, `[!] pods: namespace ${namespace}, `)
  t.notMatch(text, `[!] pods: namespace ${HOME}`)
  if (bad.length > 0) t.notMatch(text, '[+] pods ok')
}

const SEEDED_NAMESPACES = 5

/** Plays the worlds of five namespaces that the seeds from `first` on stand for. */
export const liveSeeded = async (t: Test, first: number, count: number): Promise<void> => {
  for (let seed = first; seed < first + count; seed += 1) {
    const random = new SeededRandom(seed)
    const pick = <T>(from: readonly T[]) => from[random.below(from.length)] as T
    const states = Array.from({ length: SEEDED_NAMESPACES }, () => pick(STATES))
    const phase = pick(PHASES)
    await t.test(`seed ${seed}, ${phase}: ${states.join(', ')}`, (world) =>
      live(world, states, phase),
    )
  }
}
