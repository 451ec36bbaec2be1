/** The tools of the suites: found on this machine, or built from Go modules of pinned versions. */

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync } from 'node:fs'
import { readFileSync, renameSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { keepTrackOf } from '../kit/leftovers.ts'

export type Found = { readonly path: string } | { readonly why: string }

export type Outcome = { readonly code: number; readonly stdout: string; readonly stderr: string }

export type Command = {
  readonly path: string
  readonly args: readonly string[]
  readonly input?: string
  readonly cwd?: string
  /** Besides this process's own. */
  readonly env?: Readonly<Record<string, string>>
}

const ROOT = join(import.meta.dirname, '../..')
/** A module of ours that only pins what is built. */
const GO_MODULE = join(import.meta.dirname, 'tools')
const COMMAND_LIMIT_MS = 120_000
const BUILD_LIMIT_MS = 10 * 60_000

/** On PATH, or among the programs of the cluster that `CLUSTER_HOME` has. */
export const findTool = (name: string): Found => {
  const home = process.env['CLUSTER_HOME']
  const directories = [
    ...(home === undefined ? [] : [join(home, 'bin')]),
    ...(process.env['PATH'] ?? '').split(delimiter),
  ]
  const path = directories.map((each) => join(each, name)).find(isExecutable)
  return path === undefined ? { why: `${name} not found` } : { path }
}

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** Helm 4: version 3 talks to the API server in another way. */
export const findHelm = async (): Promise<Found> => {
  const found = findTool('helm')
  if ('why' in found) return found
  const { stdout } = await run({ path: found.path, args: ['version', '--template={{.Version}}'] })
  return /^v[4-9]/.test(stdout) ? found : { why: `helm is ${stdout.trim()}, not v4 or newer` }
}

type Built = 'helm-unittest' | 'helm-docs'

let building: Promise<Found> | undefined

/** Built once and kept; `DEPLOY_TOOLS_DIR` says where. */
export const buildTool = async (name: Built): Promise<Found> => {
  building ??= buildAll()
  const built = await building
  return 'why' in built ? built : { path: join(built.path, name) }
}

const buildAll = async (): Promise<Found> => {
  const go = findTool('go')
  if ('why' in go) return go
  const versions = ['go.mod', 'go.sum'].map((name) => readFileSync(join(GO_MODULE, name), 'utf8'))
  const recipe = createHash('sha256').update(versions.join('')).digest('hex').slice(0, 12)
  const cache = process.env['DEPLOY_TOOLS_DIR'] ?? join(ROOT, 'node_modules/.cache/deploy-tools')
  const directory = join(cache, recipe)
  if (existsSync(directory)) return { path: directory }
  process.stdout.write('building helm-unittest and helm-docs, once …\n')
  mkdirSync(cache, { recursive: true })
  const unfinished = mkdtempSync(join(cache, 'unfinished-'))
  const args = ['build', '-mod=readonly', '-trimpath', '-ldflags=-s -w', '-o', unfinished, 'tool']
  const command = { path: go.path, args, cwd: GO_MODULE, env: GO_ENV }
  const { code, stderr } = await run(command, BUILD_LIMIT_MS)
  if (code !== 0) return { why: `the tools could not be built: ${stderr.slice(-500)}` }
  // Never incomplete: an interrupted build leaves nothing under this name.
  if (!existsSync(directory)) renameSync(unfinished, directory)
  return { path: directory }
}

/** A caller's own workspace must not change what is built. */
const GO_ENV = { GOWORK: 'off', CGO_ENABLED: '0' }

export type GoModule = { readonly module: string; readonly sum: string }

/** Where the sources of a module are, fetched if need be, and only with the content we know. */
export const fetchModule = async ({ module, sum }: GoModule): Promise<Found> => {
  const go = findTool('go')
  if ('why' in go) return go
  const args = ['mod', 'download', '-json', module]
  const command = { path: go.path, args, cwd: GO_MODULE, env: GO_ENV }
  const { code, stdout, stderr } = await run(command, BUILD_LIMIT_MS)
  if (code !== 0) return { why: `${module} cannot be had: ${(stderr || stdout).slice(-500)}` }
  const { Dir: path, Sum: actual } = JSON.parse(stdout) as { Dir: string; Sum: string }
  if (actual !== sum) throw new Error(`${module} is ${actual}, and should be ${sum}`)
  return { path }
}

/** Runs to its end, whatever that is; ended with the run. */
export const run = async (command: Command, limitMs = COMMAND_LIMIT_MS): Promise<Outcome> => {
  const { path, args, input = '', cwd = ROOT, env } = command
  const child = spawn(path, args, { cwd, env: { ...process.env, ...env } })
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const release = keepTrackOf(async () => child.kill('SIGKILL'))
  const timer = setTimeout(() => child.kill('SIGKILL'), limitMs)
  const output: Record<'stdout' | 'stderr', Buffer[]> = { stdout: [], stderr: [] }
  child.stdout.on('data', (chunk: Buffer) => output.stdout.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => output.stderr.push(chunk))
  child.on('error', reject)
  child.on('close', (code, signal) => resolve(code ?? (signal === null ? 1 : 128)))
  // A command that does not read its input is not an error.
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  try {
    const code = await promise
    const text = (chunks: readonly Buffer[]) => Buffer.concat(chunks).toString()
    return { code, stdout: text(output.stdout), stderr: text(output.stderr) }
  } finally {
    clearTimeout(timer)
    await release()
  }
}

/** Standard output of what has to succeed. */
export const mustRun = async (command: Command, limitMs = COMMAND_LIMIT_MS): Promise<string> => {
  const { code, stdout, stderr } = await run(command, limitMs)
  if (code === 0) return stdout
  const line = [command.path.split('/').at(-1), ...command.args].join(' ')
  throw new Error(`${line} ended with ${code}:\n${stderr || stdout}`)
}
