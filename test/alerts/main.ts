/** `npm run test:alerts`: a real Prometheus sees each shipped alert fire on a real sidecar, and end. */

import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { Semaphore } from '@openclaw-k8s/auth-sidecar/lib/semaphore.ts'
import { startPrometheus, type Prometheus } from '../deploy/prometheus.ts'
import { readAlerts, RULES } from '../kit/observability-files.ts'
import { waitForProcess } from '../kit/wait.ts'
import { CASES } from './cases.ts'
import { FACTOR, INTERVAL, scaleRules } from './scaled-rules.ts'
import type { AlertCase } from './site.ts'

/** Sidecars at once. */
const AT_ONCE = 5
const FIRST_SCRAPES = 3
const READY_MS_MAX = 30_000
/** The longest way to an alert is a range of 30 m and a `for` of 15 m: 45 s. */
const FIRE_MS_MAX = 120_000
const RESOLVE_MS_MAX = 120_000
const NAMESPACE = 'gateways'

const USAGE = `npm run test:alerts -- [--only ALERT,ALERT…]

Each alert of the chart is seen firing and then resolving. All times of the rules are divided by
${FACTOR}, and Prometheus scrapes every ${INTERVAL}.
`

type Row = {
  readonly alert: string
  readonly state: string
  readonly firedMs?: number
  readonly resolvedMs?: number
  readonly failure?: string
}

const run = promisify(execFile)

const main = async (): Promise<void> => {
  const { values } = parseArgs({
    options: { only: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
  })
  if (values.help === true) return void process.stdout.write(USAGE)
  const shipped = readAlerts().map(({ alert }) => alert)
  const wanted = values.only?.split(',') ?? shipped
  const unknown = wanted.filter((alert) => !shipped.includes(alert))
  if (unknown.length > 0) throw new Error(`there is no alert ${unknown.join(', ')}`)
  if (!(await hasPrometheus())) {
    process.stdout.write(
      'prometheus is not installed. Debian and Ubuntu: apt-get install prometheus; ' +
        'elsewhere put the programs of https://prometheus.io/download on the PATH.\n',
    )
    return finish([], wanted.length)
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
  const directory = await mkdtemp(join(tmpdir(), 'test-alerts-'))
  try {
    finish(await watchAll(wanted, directory), 0)
  } finally {
    await rm(directory, { recursive: true })
  }
}

const hasPrometheus = async (): Promise<boolean> =>
  run('prometheus', ['--version']).then(
    () => true,
    () => false,
  )

const watchAll = async (wanted: readonly string[], directory: string): Promise<readonly Row[]> => {
  const rulesFile = join(directory, 'rules.yaml')
  await writeFile(rulesFile, scaleRules(await readFile(RULES, 'utf8')))
  const targets = new TargetFile(join(directory, 'targets.json'))
  await targets.write()
  const prometheus = await startPrometheus({
    directory,
    rulesFile,
    interval: INTERVAL,
    discovery: { file_sd_configs: [{ files: [targets.path], refresh_interval: '1s' }] },
  })
  const cases = CASES.filter(({ alerts }) => alerts.some((alert) => wanted.includes(alert)))
  const places = new Semaphore(AT_ONCE, cases.length)
  try {
    const rows = await Promise.all(
      cases.map(async (each) => {
        const release = await places.acquire(new AbortController().signal)
        try {
          return await watchCase(each, { prometheus, targets, wanted })
        } finally {
          release()
        }
      }),
    )
    const seen = new Set(cases.flatMap(({ alerts }) => alerts))
    const missing = wanted.filter((alert) => !seen.has(alert))
    return [
      ...rows.flat(),
      ...missing.map((alert) => ({ alert, state: '', failure: 'no case brings it about' })),
    ]
  } finally {
    await prometheus.stop()
  }
}

type Watch = {
  readonly prometheus: Prometheus
  readonly targets: TargetFile
  readonly wanted: readonly string[]
}

/** The file from which Prometheus learns whom to scrape. */
class TargetFile {
  readonly path: string
  readonly #targets = new Map<string, string>()

  constructor(path: string) {
    this.path = path
  }

  async set(pod: string, address: string | undefined): Promise<void> {
    if (address === undefined) this.#targets.delete(pod)
    else this.#targets.set(pod, address)
    await this.write()
  }

  /** By renaming: Prometheus must not read half of it. */
  async write(): Promise<void> {
    const targets = [...this.#targets].map(([pod, address]) => ({
      targets: [address],
      labels: { namespace: NAMESPACE, pod, job: `${NAMESPACE}/${pod}` },
    }))
    const next = `${this.path}.${process.hrtime.bigint()}`
    await writeFile(next, JSON.stringify(targets))
    await rename(next, this.path)
  }
}

const watchCase = async (each: AlertCase, watch: Watch): Promise<readonly Row[]> => {
  const { prometheus, targets, wanted } = watch
  const alerts = each.alerts.filter((alert) => wanted.includes(alert))
  const pod = (each.alerts[0] ?? '').replace('OpenClaw', '').toLowerCase()
  const site = await each.start()
  const target = {
    remove: () => targets.set(pod, undefined),
    add: () => targets.set(pod, site.admin),
  }
  const firing = async (alert: string): Promise<boolean> => {
    const own = `ALERTS{alertname="${alert}",alertstate="firing",job=~"${NAMESPACE}/${pod}|"}`
    const found = await prometheus.query(own)
    return found.some(
      ({ metric }) => metric['pod'] === pod || metric['job'] === `${NAMESPACE}/${pod}`,
    )
  }
  const rows = new Map<string, Row>(
    alerts.map((alert) => [alert, { alert, state: each.state }] as const),
  )
  const note = (alert: string, more: Partial<Row>) => {
    const row = { alert, state: each.state, ...rows.get(alert), ...more }
    rows.set(alert, row)
    process.stdout.write(
      `${alert} ${more.failure ?? (more.resolvedMs === undefined ? 'fires' : 'resolved')}\n`,
    )
  }
  const waitFor = async (isSo: boolean, bringAbout: () => unknown) => {
    const [withinMs, key] = isSo
      ? ([FIRE_MS_MAX, 'firedMs'] as const)
      : ([RESOLVE_MS_MAX, 'resolvedMs'] as const)
    const since = performance.now()
    await bringAbout()
    await Promise.all(
      alerts.map(async (alert) => {
        if (rows.get(alert)?.failure !== undefined) return
        const verb = isSo ? 'fires' : 'resolves'
        await waitForProcess(
          `${alert} ${verb}`,
          withinMs,
          async () => (await firing(alert)) === isSo,
        )
          .then(() => note(alert, { [key]: performance.now() - since }))
          .catch((error: Error) => note(alert, { failure: error.message }))
      }),
    )
  }
  try {
    await target.add()
    const scrapes = `count_over_time(up{pod="${pod}"}[1m])`
    await waitForProcess('the first scrapes', READY_MS_MAX, async () => {
      const [sample] = await prometheus.query(scrapes)
      return Number(sample?.value[1] ?? 0) >= FIRST_SCRAPES
    })
    await waitFor(true, () => site.provoke(target))
    await waitFor(false, () => site.relieve(target))
  } catch (error) {
    for (const alert of alerts) note(alert, { failure: String(error) })
  } finally {
    await target.remove()
    await site.stop()
  }
  return [...rows.values()]
}

const seconds = (ms: number | undefined): string =>
  ms === undefined ? '-' : `${(ms / 1000).toFixed(1)} s`

const finish = (rows: readonly Row[], skipped: number): void => {
  const cells = rows.map(({ alert, firedMs, resolvedMs, failure, state }) => [
    alert,
    seconds(firedMs),
    seconds(resolvedMs),
    failure === undefined ? 'ok' : 'FAILED',
    failure ?? state,
  ])
  const table = [['alert', 'fires after', 'resolves after', '', 'state'], ...cells]
  const widths = [0, 1, 2, 3].map((at) => Math.max(...table.map((row) => (row[at] ?? '').length)))
  if (rows.length > 0) {
    process.stdout.write(`\nAll times of the rules are divided by ${FACTOR}.\n`)
    for (const row of table) {
      const [last = '', ...before] = row.toReversed()
      const padded = before.toReversed().map((cell, at) => cell.padEnd(widths[at] ?? 0))
      process.stdout.write(`${[...padded, last].join('  ').trimEnd()}\n`)
    }
  }
  const failed = rows.filter(({ failure }) => failure !== undefined).length
  process.stdout.write(`${rows.length - failed} passed, ${failed} failed, ${skipped} skipped\n`)
  process.exitCode = failed === 0 ? 0 : 1
}

await main()
