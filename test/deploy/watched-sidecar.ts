/** A whole sidecar watched by a real Prometheus, with traffic for everything that a panel shows. */

import { deepStrictEqual, ok } from 'node:assert/strict'
import { listQueries } from '../kit/observability-files.ts'
import { SECRET, startOpenClawRig } from '../kit/openclaw-rig.ts'
import { createPairedDevices } from '../kit/paired-devices.ts'
import { startRig, type Rig } from '../kit/rig.ts'
import { waitForProcess } from '../kit/wait.ts'
import { openWorker } from '../kit/worker-client.ts'
import { startPrometheus, staticTargets, TARGET, type Prometheus } from './prometheus.ts'

const WAIT_MS_MAX = 60_000
/** Longer than all this takes, so that nothing that happened falls out of it. */
const RATE_INTERVAL = '5m'
const ONLY_AMISS = / (?:>|==) 0$/

export const watchSidecar = async (directory: string) => {
  // A second stream of one pod is then a fault, so that one is shown.
  const rig = await startRig({ set: ['limits.streamsPerPod=1'] })
  const hosting = await startHostingRig()
  let stopRigs = async () => {
    stopRigs = async () => {}
    await Promise.all([rig.stop(), hosting.stop()])
  }
  const addresses = [rig, hosting].map(({ adminUrl }) => new URL(adminUrl).host)
  const prometheus = await startPrometheus({
    directory,
    discovery: staticTargets(addresses),
  }).catch(async (error: unknown) => {
    await stopRigs()
    throw error
  })
  const { query, rules } = prometheus

  return {
    makeHistory: async () => {
      // An increase is visible only after an earlier scrape.
      await waitForProcess('a first scrape', WAIT_MS_MAX, async () => {
        return (await query('openclaw_k8s_build_info')).length === addresses.length
      })
      await makeHistory(rig)
    },
    queriesAnswer: async () => {
      let silent: readonly string[] = []
      await waitForProcess('an answer to every query', WAIT_MS_MAX, async () => {
        silent = await findSilent(prometheus)
        return silent.length === 0
      }).catch((cause: unknown) => {
        throw new Error(`no answer to:\n${silent.join('\n')}`, { cause })
      })
    },
    namespacesStay: async () => {
      const sessions = await query('sum by (namespace) (openclaw_k8s_sessions_active)')
      deepStrictEqual(
        sessions.map(({ metric, value }) => [metric['namespace'], value[1]]),
        [['openclaw', '1']],
      )
    },
    alertsEvaluate: async () => {
      const unwell = (await rules()).filter(({ health }) => health !== 'ok')
      deepStrictEqual(unwell, [])
    },
    nobodyIsWoken: async () => {
      const firing = (labels: string) => query(`ALERTS{alertstate="firing",${labels}}`)
      await waitForProcess(
        'the alert that wakes nobody',
        WAIT_MS_MAX,
        async () =>
          (await firing('alertname="OpenClawFailedAttempts",severity="info"')).length === 1,
      )
      deepStrictEqual(await firing('severity="critical"'), [])
      const raised = (await rules()).flatMap(({ alerts }) => alerts)
      ok(raised.length > 0)
      for (const { annotations } of raised) {
        ok(!JSON.stringify(annotations).includes('error expanding'), JSON.stringify(annotations))
      }
    },
    goneIsNoticed: async () => {
      await stopRigs()
      const pending = 'ALERTS{alertname="OpenClawSidecarDown",alertstate="pending"}'
      await waitForProcess(
        'the alert is pending',
        WAIT_MS_MAX,
        async () => (await query(pending)).length === addresses.length,
      )
    },
    stop: async () => {
      await prometheus.stop()
      await stopRigs()
    },
  }
}

/** Another sidecar beside it, with certificates, whose gateway tells of hosted sessions. */
const startHostingRig = () => {
  const devices = createPairedDevices(SECRET)
  const methods = {
    ...devices.gateway.methods,
    'environments.list': () => ({ environments: [{ sessionHost: true }] }),
  }
  return startOpenClawRig({ devices, gateway: { methods }, isTls: true })
}

/** Comes, fails and goes in all the ways that a panel shows. */
const makeHistory = async (rig: Rig): Promise<void> => {
  const [one, other] = [
    rig.createPod('worker-a', '127.0.0.11'),
    rig.createPod('worker-b', '127.0.0.12'),
  ]
  const token = rig.mint({ pod: one })
  const staying = await openWorker({ url: rig.url, token, localAddress: '127.0.0.11' })
  staying.send('hello')
  await rig.connect({ token })
  await rig.connect({ token: rig.mint({ pod: one, audiences: ['somebody-else'] }) })
  const going = await openWorker({
    url: rig.url,
    token: rig.mint({ pod: other }),
    localAddress: '127.0.0.12',
  })
  const closed = new Promise((resolve) => going.once('close', resolve))
  rig.api.deletePod('openclaw', 'worker-b')
  await closed
  await fetch(rig.url.replace('ws:', 'http:'))
  rig.gateway.setBehavior('status', { connections: 1 })
  const unlucky = rig.createPod('worker-c', '127.0.0.13')
  await rig.connect({ token: rig.mint({ pod: unlucky }), localAddress: '127.0.0.13' })
}

/** The queries of the dashboard that get no answer. */
const findSilent = async ({ query }: Prometheus): Promise<readonly string[]> => {
  const silent: string[] = []
  for (const { where, expr } of listQueries()) {
    // An alert has no answer while all is well.
    if (where.startsWith('OpenClaw')) continue
    const asked = expr
      .replaceAll('$__rate_interval', RATE_INTERVAL)
      .replaceAll('$namespace', TARGET.namespace)
      .replaceAll('$pod', TARGET.pod)
      // What is shown only while something is amiss is there all the same.
      .replace(ONLY_AMISS, '')
    if ((await query(asked)).length === 0) silent.push(`${where}: ${expr}`)
  }
  return silent
}
