/** `npm run bench:start`: how long the sidecar takes to listen and to be ready, and what it occupies when idle. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import { startKubeApi } from '../kit/kube-api.ts'
import { createPairedDevices } from '../kit/paired-devices.ts'
import { ship } from './peers/shipped.ts'

const ROUNDS = Number(process.env['ROUNDS'] ?? 7)
const IDLE_MS = Number(process.env['IDLE_MS'] ?? 5000)
const RSS_MIB_MAX = 80
const READY_POLL_MS = 2
const TICK_MS = 10
const SECRET = 'the-secret-of-the-gateway-itself'
const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url))

const COLUMNS = {
  listeningMs: 'listening, ms',
  readyMs: 'ready, ms',
  cpuMs: 'CPU, ms',
  rssMib: 'RSS idle, MiB',
  anonymousMib: 'its own pages, MiB',
} as const
type Run = Readonly<Record<keyof typeof COLUMNS, number>>

/** A command line to measure, with its environment before it: `NAME=value node main.js`. */
type Variant = { readonly name: string; readonly words: readonly string[] }

const main = async (): Promise<void> => {
  const { main: bundle, env } = ship(CHECKOUT)
  const shipped: Variant = {
    name: 'as shipped',
    words: [...Object.entries(env).map((pair) => pair.join('=')), process.execPath, bundle],
  }
  const others = process.argv.slice(2).map((line) => ({ name: line, words: line.split(' ') }))
  const directory = await mkdtemp(join(tmpdir(), 'auth-sidecar-start-'))
  const api = await startKubeApi()
  const gateway = await startGatewayStub(createPairedDevices(SECRET).gateway)
  const configs = await writeConfigs(directory, { ...(await api.files(directory)), api, gateway })
  const rows = [shipped, ...others].flatMap((variant) =>
    configs.map(({ protocol, path }) => ({ variant, protocol, path, runs: [] as Run[] })),
  )
  try {
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const { variant, path, runs } of rows) runs.push(await measure(variant, path))
    }
  } finally {
    await gateway.close()
    await api.stop()
    await rm(directory, { recursive: true })
  }
  print(['', 'protocol', ...Object.values(COLUMNS)])
  print(['---', '---', ...Object.values(COLUMNS).map(() => '---')])
  for (const { variant, protocol, runs } of rows) {
    print([variant.name, protocol, ...namesOf(COLUMNS).map((name) => summary(runs, name))])
  }
  const rss = rows
    .filter(({ variant }) => variant === shipped)
    .map(({ runs }) => median(runs.map(({ rssMib }) => rssMib)))
  const isMet = Math.max(...rss) <= RSS_MIB_MAX
  process.stdout.write(`\n${isMet ? 'ok    ' : 'BROKEN'}  at most ${RSS_MIB_MAX} MiB when idle\n`)
  process.exitCode = isMet ? 0 : 1
}

type Between = {
  readonly api: { readonly url: string }
  readonly gateway: { readonly url: string }
  readonly caFile: string
  readonly tokenFile: string
}

const writeConfigs = async (directory: string, { api, gateway, caFile, tokenFile }: Between) => {
  const [secretFile, deviceSeedFile] = [join(directory, 'secret'), join(directory, 'seed')]
  await writeFile(secretFile, SECRET)
  await writeFile(deviceSeedFile, 'a-seed-of-more-than-sixteen-bytes')
  const protocols = {
    stream: {},
    openclaw: { auth: { mode: 'token', secretFile }, deviceSeedFile },
  }
  const config = {
    listen: { workers: '127.0.0.1:0', admin: '127.0.0.1:0' },
    kubernetes: { apiServer: api.url, caFile, tokenFile },
    k8sTrust: { allowedIdentities: [{ namespace: 'openclaw', serviceAccount: 'openclaw-worker' }] },
  }
  return Promise.all(
    Object.entries(protocols).map(async ([protocol, more]) => {
      const path = join(directory, `${protocol}.json`)
      const content = { ...config, gateway: { url: gateway.url, protocol, ...more } }
      await writeFile(path, JSON.stringify(content))
      return { protocol, path }
    }),
  )
}

const measure = async ({ words }: Variant, config: string): Promise<Run> => {
  const from = words.findIndex((word) => !/^[A-Z_]+=/.test(word))
  const [command = '', ...args] = words.slice(from)
  const startedAt = performance.now()
  const child = spawn(command, [...args, 'serve', '--config', config], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: Object.fromEntries(words.slice(0, from).map((word) => word.split(/=(.*)/s).slice(0, 2))),
  })
  const closed = once(child, 'close')
  try {
    const admin = await listening(child.stderr)
    const listeningMs = performance.now() - startedAt
    while (!(await fetch(`http://${admin}/readyz`)).ok) await sleep(READY_POLL_MS)
    const readyMs = performance.now() - startedAt
    await sleep(IDLE_MS)
    return { listeningMs, readyMs, ...(await occupied(child.pid ?? 0)) }
  } finally {
    child.kill('SIGKILL')
    await closed
  }
}

const listening = async (stderr: NodeJS.ReadableStream): Promise<string> => {
  const lines = createInterface({ input: stderr })
  for await (const line of lines) {
    const { msg, admin } = JSON.parse(line) as { readonly msg: string; readonly admin: string }
    if (msg === 'listening') return admin
  }
  throw new Error('the sidecar ended before it listened')
}

/** RSS counts the pages of the Node binary too, which processes of one machine share. */
const occupied = async (pid: number) => {
  const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8')
  const mib = (name: string) =>
    Number(rollup.match(new RegExp(`^${name}: +(\\d+)`, 'm'))?.[1]) / 1024
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? []
  // proc(5): utime and stime are the 14th and 15th, two before the part that was cut off.
  const ticks = Number(fields[11]) + Number(fields[12])
  return { cpuMs: ticks * TICK_MS, rssMib: mib('Rss'), anonymousMib: mib('Anonymous') }
}

const namesOf = <T extends object>(record: T) => Object.keys(record) as (keyof T)[]

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN

const summary = (runs: readonly Run[], name: keyof Run): string => {
  const values = runs.map((run) => run[name])
  const digits = name.endsWith('Mib') ? 1 : 0
  const [middle, least, most] = [median(values), Math.min(...values), Math.max(...values)]
  return `${middle.toFixed(digits)} (${least.toFixed(digits)}–${most.toFixed(digits)})`
}

const print = (cells: readonly string[]): void => {
  process.stdout.write(`| ${cells.join(' | ')} |\n`)
}

await main()
