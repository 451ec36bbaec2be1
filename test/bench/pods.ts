/** `npm run bench:pods`: what watching 5,000 pods costs in memory and time, and whether a relist stalls the loop. */

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setFlagsFromString } from 'node:v8'
import { setTimeout as sleep } from 'node:timers/promises'
import { runInNewContext } from 'node:vm'
import { systemClock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { KubeClient } from '@openclaw-k8s/auth-sidecar/kube/client.ts'
import { OwnCredentials } from '@openclaw-k8s/auth-sidecar/kube/own-credentials.ts'
import { PodWatch } from '@openclaw-k8s/auth-sidecar/kube/pod-watch.ts'
import { WatchClient } from '@openclaw-k8s/auth-sidecar/kube/watch-stream.ts'
import { startKubeApi } from '../kit/kube-api.ts'

const PODS = Number(process.env['PODS'] ?? 5000)
/** A pod in a real cluster has some KiB of specification, conditions and managed fields. */
const PADDING = 'x'.repeat(6 * 1024)
const NAMESPACE = 'openclaw'
const SERVICE_ACCOUNT = 'openclaw-worker'
const STALL_MS_MAX = 50
const POLL_MS = 5

type Files = { readonly url: string; readonly caFile: string; readonly tokenFile: string }

/** The stand-in API server, in its own process so that only the watch is measured. */
const serve = async (directory: string): Promise<void> => {
  const api = await startKubeApi()
  for (let n = 0; n < PODS; n += 1) {
    const name = `worker-${n}`
    api.createPod({
      namespace: NAMESPACE,
      name,
      serviceAccount: SERVICE_ACCOUNT,
      ips: [`10.${n >> 16}.${(n >> 8) & 255}.${n & 255}`],
      nodeName: `node-${n % 100}`,
      labels: { 'app.kubernetes.io/name': SERVICE_ACCOUNT },
    })
    api.patchPod(NAMESPACE, name, { metadata: { annotations: { padding: PADDING } } })
  }
  process.on('message', () => api.expireWatches())
  process.on('disconnect', () => process.exit())
  process.send?.({ url: api.url, ...(await api.files(directory)) } satisfies Files)
}

const measure = async (directory: string): Promise<void> => {
  const child = fork(new URL(import.meta.url).pathname, ['serve', directory])
  const [{ url, caFile, tokenFile }] = (await once(child, 'message')) as [Files]
  const readFile = (path: string) => readFileSync(path, 'utf8')
  const common = {
    apiServer: new URL(url),
    clock: systemClock,
    credentials: new OwnCredentials({ tokenFile, caFile, readFile, clock: systemClock }),
    onOwnCredentialRefused() {},
  }
  const lists = new KubeClient({
    ...common,
    concurrency: 4,
    queue: 256,
    faultCode: 'pod_unconfirmed',
  })
  const watches = new WatchClient(common)
  let pages = 0
  let outages = 0
  const watch = new PodWatch({
    lists: {
      request(request) {
        pages += 1
        return lists.request(request)
      },
    },
    watches,
    clock: systemClock,
    random: () => 0,
    onDown() {
      outages += 1
    },
    onUp() {},
  })

  const before = memory()
  await stage('initial list', async () => {
    watch.watch([{ namespace: NAMESPACE, serviceAccount: SERVICE_ACCOUNT }])
    await until(() => watch.scopes.isReady && watch.scopes.longestStaleForMs === 0)
  })
  const held = memory()
  const relist = await stage('full relist', async () => {
    const asked = pages
    child.send('expire')
    await until(() => outages >= 2 && pages > asked && watch.scopes.longestStaleForMs === 0)
  })
  const after = memory()
  report(`watched pods: ${watch.size}`)
  report(`heap per pod: ${(((held.heap - before.heap) * 1024) / watch.size).toFixed(2)} KiB`)
  report(
    `RSS growth: ${(held.rss - before.rss).toFixed(1)} MiB, after the relist ${(after.rss - before.rss).toFixed(1)} MiB`,
  )
  watch.stop()
  await lists.close()
  await watches.close()
  child.disconnect()
  report(`the relist stalled the loop for ${relist.toFixed(1)} ms (at most ${STALL_MS_MAX})`)
  process.exitCode = relist < STALL_MS_MAX && watch.size === PODS ? 0 : 1
}

const until = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await sleep(POLL_MS)
}

/** Runs, reports the time and CPU it took, and returns the longest stall of the loop in milliseconds. */
const stage = async (name: string, run: () => Promise<void>): Promise<number> => {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  const cpu = process.cpuUsage()
  const startedAt = performance.now()
  delay.enable()
  await run()
  delay.disable()
  const tookMs = performance.now() - startedAt
  const { user, system } = process.cpuUsage(cpu)
  const stall = delay.max / 1e6
  report(
    `${name}: ${tookMs.toFixed(0)} ms, CPU ${((user + system) / 1000).toFixed(0)} ms, ` +
      `longest stall ${stall.toFixed(1)} ms, p99 ${(delay.percentile(99) / 1e6).toFixed(1)} ms`,
  )
  return stall
}

/** After a full collection, in MiB. */
const memory = () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  const { rss, heapUsed } = process.memoryUsage()
  return { rss: rss / 2 ** 20, heap: heapUsed / 2 ** 20 }
}

const report = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

const [role, given = ''] = process.argv.slice(2)
if (role === 'serve') await serve(given)
else {
  const directory = mkdtempSync(join(tmpdir(), 'auth-sidecar-bench-'))
  await measure(directory).finally(() => rmSync(directory, { recursive: true }))
}
