/** What `npm run bench:hostile` does to the outputs: nobody reads them, and the sidecar must go on and exit. */

import { rmdirSync } from 'node:fs'
import { startServeRig } from '../../kit/serve-rig.ts'
import { findFreePort } from '../../kit/free-port.ts'
import { openFull, openPipe } from '../../kit/pipes.ts'
import { heapFlag, isOk, joinCgroup, POD_ADDRESS, sampleRss, startEcho } from './rig.ts'
import type { Shipped } from '../peers/shipped.ts'

type OutputCase = {
  readonly state: 'blocked' | 'gone' | 'full'
  readonly signal: 'SIGTERM' | 'SIGINT'
}

export const OUTPUT_CASES: readonly OutputCase[] = (['blocked', 'gone', 'full'] as const).flatMap(
  (state) => (['SIGTERM', 'SIGINT'] as const).map((signal) => ({ state, signal })),
)

export const nameOf = ({ state, signal }: OutputCase): string => `outputs ${state}, then ${signal}`

/** Each comes from another address, so that each is an audit line. */
const REFUSALS = 4000
const AT_ONCE = 50
/** The rig's `drain.window` of 1 s, and the 5 s an exit may take beyond it. */
const EXIT_MS_MAX = 6000

type Options = { readonly shipped: Shipped; readonly memoryMib: number }

export const playOutputs = async (
  { state, signal }: OutputCase,
  { shipped, memoryMib }: Options,
) => {
  const endings: (() => void)[] = []
  const ending = { teardown: (end: () => void) => void endings.unshift(end) }
  const pipe = openPipe(ending)
  const fd = state === 'full' ? openFull(ending) : pipe.writer
  const { env, main } = shipped
  const rig = await startServeRig({
    workers: await findFreePort(),
    admin: await findFreePort(),
    process: {
      main,
      stdout: fd,
      stderr: fd,
      env: { ...env, NODE_OPTIONS: `${env['NODE_OPTIONS'] ?? ''} ${heapFlag(memoryMib)}` },
    },
  })
  const cgroup = joinCgroup(rig.sidecar.pid, memoryMib)
  const token = rig.mint({ pod: rig.createPod('worker-a', POD_ADDRESS) })
  const echo = await startEcho({ url: rig.url, token, localAddress: POD_ADDRESS })
  const rss = sampleRss(rig.sidecar.pid)
  const rssBefore = rss.now()
  if (state === 'blocked') pipe.fill()
  if (state === 'gone') pipe.closeReader()

  for (let n = 0; n < REFUSALS; n += AT_ONCE) {
    await Promise.all(
      Array.from({ length: AT_ONCE }, (_, nth) =>
        rig.connect(`127.0.${3 + Math.floor((n + nth) / 250)}.${1 + ((n + nth) % 250)}`, 'bad'),
      ),
    )
  }
  const isProbed = await isOk(`${rig.adminUrl}/livez`)
  const metrics = await (await fetch(`${rig.adminUrl}/metrics`)).text()
  const dropped = [...metrics.matchAll(/^openclaw_k8s_log_lines_dropped_total\S* (\d+)$/gm)]
    .map(([, count]) => Number(count))
    .reduce((sum, count) => sum + count, 0)
  const { isOpen, answered, sent, slowestMs } = await echo.stop()

  const signalledAt = performance.now()
  rig.sidecar.signal(signal)
  const { code, signal: ended } = await rig.sidecar.exited
  const exitMs = performance.now() - signalledAt
  const peakMib = rss.stop()
  await rig.close()
  for (const end of endings) end()
  if (cgroup !== undefined) rmdirSync(cgroup)
  const isKept = isOpen && answered === sent
  const isLost = state !== 'blocked'
  return {
    refused: REFUSALS,
    rssBefore,
    peakMib,
    isProbed,
    isKept,
    slowestMs,
    dropped,
    exit: ended ?? `exit ${code}`,
    exitMs,
    // A blocked pipe can be read again, so its lines wait in the queue; the others' lines are lost.
    holds: isProbed && isKept && code === 0 && exitMs <= EXIT_MS_MAX && dropped > 0 === isLost,
  }
}
