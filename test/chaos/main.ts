/** `npm run test:chaos`: seeded bad days of the sidecar's bundle on the real API server that `KUBECONFIG` names. */

import { execFileSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { createApi, readVersion } from '../cluster/api.ts'
import { readKubeconfig, type Kubeconfig } from '../cluster/kubeconfig.ts'
import { findApiServer, type ApiServerProcess } from '../cluster/own-cluster.ts'
import { findNamespace, runInside } from '../kit/namespace.ts'
import { today } from '../kit/result-page.ts'
import { joinSockets } from './bridge.ts'
import { rewritePage } from './page.ts'
import type { Played } from './played.ts'
import type { ApiServerAct } from './world.ts'

const USAGE = `npm run test:chaos -- [--scenarios N] [--seed S] [--minutes M] [--at-least N]

  --scenarios  how many scenarios to play. Default 100
  --seed       the first seed. Default: drawn, and printed
  --minutes    begin no scenario after this time. Default: no limit
  --at-least   play this number at least, however long it takes. Default 1
  --page       write the result to docs/reliability.md
`
const WRONG_USAGE = 64
const SEED_MAX = 2 ** 31
const PAGE = new URL('../../docs/reliability.md', import.meta.url)
const BUNDLER = fileURLToPath(new URL('../../sidecar/bundle.ts', import.meta.url))
const NEEDED = ['iptables', 'prlimit', 'faketime', 'mount'] as const

const say = (text: string): void => void process.stdout.write(`${text}\n`)

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    options: {
      scenarios: { type: 'string', default: '100' },
      seed: { type: 'string' },
      minutes: { type: 'string', default: 'Infinity' },
      'at-least': { type: 'string', default: '1' },
      page: { type: 'boolean', default: false },
    },
  })
  const seed = Number(values.seed ?? Math.floor(Math.random() * SEED_MAX))
  const [scenarios, minutes, atLeast] = [values.scenarios, values.minutes, values['at-least']].map(
    Number,
  )
  if (![seed, scenarios, atLeast].every(Number.isInteger) || Number.isNaN(minutes)) {
    process.stderr.write(USAGE)
    return WRONG_USAGE
  }
  const ground = findGround()
  if ('why' in ground) {
    say(`skipped: ${ground.why}`)
    say('0 passed, 0 failed, 1 skipped')
    return 0
  }
  const directory = mkdtempSync(join(tmpdir(), 'sidecar-chaos-'))
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }))
  execFileSync(process.execPath, [BUNDLER, directory])
  const bridge = join(directory, 'bridge')
  await startBridge(bridge, Number(ground.config.server.port))
  say(`seeds from ${seed} on`)
  const results: Played[] = []
  // A run that is interrupted may leave the API server dead.
  const version = await versionOf(ground)
  const args = {
    directory,
    bridge,
    'bridge-port': ground.config.server.port,
    seed,
    scenarios,
    minutes,
    'at-least': atLeast,
  }
  const inside = runInside(
    ground.namespace,
    fileURLToPath(new URL('inside.ts', import.meta.url)),
    Object.entries(args).map(([name, value]) => `--${name}=${value}`),
    (message, child) => serve(message, child, ground.apiServer, results),
  )
  await inside.exited
  // Whatever the run has left it in.
  obey(ground.apiServer, 'thaw')
  if (values.page) {
    const run = { date: today(), version, firstSeed: seed, played: results }
    await writeFile(PAGE, rewritePage(await readFile(PAGE, 'utf8'), run))
  }
  const totals = inside.totals() ?? { passed: 0, failed: 1, skipped: 0 }
  const isEnough = results.length >= (atLeast ?? 1)
  if (!isEnough) say(`only ${results.length} scenarios were played`)
  const failed = totals.failed + (isEnough ? 0 : 1)
  say(`${totals.passed} passed, ${failed} failed, ${totals.skipped} skipped`)
  return failed === 0 ? 0 : 1
}

const versionOf = async ({ config }: Ground): Promise<string> => {
  const api = createApi(config)
  const version = await readVersion(api)
  api.close()
  return version
}

type Ground = {
  readonly namespace: readonly string[]
  readonly config: Kubeconfig
  readonly apiServer: ApiServerProcess
}

const findGround = (): Ground | { readonly why: string } => {
  const path = process.env['KUBECONFIG']
  if (!path) return { why: 'KUBECONFIG names no API server' }
  const config = readKubeconfig(path)
  const apiServer = findApiServer(config)
  if (apiServer === undefined)
    return { why: 'the API server does not run as a process on this machine' }
  const namespace = findNamespace()
  if ('why' in namespace) return namespace
  if (!namespace.args.includes('--mount')) return { why: 'no mount namespace may be made here' }
  const missing = NEEDED.filter((name) => !isThere(name))
  if (missing.length > 0) return { why: `${missing.join(', ')} not found` }
  return { namespace: namespace.args, config, apiServer }
}

const isThere = (program: string): boolean => {
  try {
    execFileSync('/bin/sh', ['-c', `command -v ${program}`], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

/** Leads from a socket file, which can be seen from every network namespace, to the API server. */
const startBridge = async (path: string, port: number): Promise<void> => {
  const server = createServer({ allowHalfOpen: true }, (near) => {
    joinSockets(near, connect({ host: '127.0.0.1', port, noDelay: true }))
  })
  server.listen(path)
  await once(server, 'listening')
  server.unref()
}

/** What the namespace asks for, and what it has to tell. */
const serve = (
  message: unknown,
  child: ChildProcess,
  apiServer: ApiServerProcess,
  results: Played[],
): boolean => {
  const { act, id, played } = message as { act?: ApiServerAct; id?: number; played?: Played }
  if (played !== undefined) results.push(played)
  if (act !== undefined) {
    obey(apiServer, act)
    child.send({ done: id })
  }
  return played !== undefined || act !== undefined
}

/** Two faults may want the same server, and one of them finds it dead. */
const obey = (apiServer: ApiServerProcess, act: ApiServerAct): void => {
  try {
    apiServer[act]()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

process.exitCode = await main()
