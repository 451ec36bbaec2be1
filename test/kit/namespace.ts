/** A private network and process namespace for the suite: pods are addresses in it, and nothing outlives it. */

import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Addresses 10.244.1.1 to 10.244.1.N stand for pods. */
export const PODS_MAX = 250
export const podAddress = (number: number): string => {
  if (number > PODS_MAX) throw new Error(`there are ${PODS_MAX} pod addresses only`)
  return `10.244.1.${number}`
}

/** Tells the script whether its mounts are private. */
const OWN_MOUNTS = 'OPENCLAW_SUITE_OWN_MOUNTS'
const UNSHARE = 'unshare'
const IP = 'ip'
const MOUNT = 'mount'
const BASE = ['--net', '--pid', '--fork', '--kill-child=SIGKILL']
/** With its own /proc if that is allowed; as root of a user namespace for users who are not root. */
const WAYS: readonly (readonly string[])[] = [
  [...BASE, '--mount', '--mount-proc'],
  BASE,
  [...BASE, '--map-root-user', '--mount', '--mount-proc'],
  [...BASE, '--map-root-user'],
]

/** How a namespace can be had here, or why not. */
export const findNamespace = ():
  | { readonly args: readonly string[] }
  | { readonly why: string } => {
  const missing = [
    [UNSHARE, '--version'],
    [IP, '-Version'],
  ].filter(([name = '', flag = '']) => spawnSync(name, [flag]).error !== undefined)
  if (missing.length > 0) return { why: `${missing.map(([name]) => name).join(', ')} not found` }
  const args = WAYS.find(
    (way) => spawnSync(UNSHARE, [...way, IP, 'link', 'set', 'lo', 'up']).status === 0,
  )
  return args === undefined ? { why: 'no network namespace may be made here' } : { args }
}

type Totals = { readonly passed: number; readonly failed: number; readonly skipped: number }

/**
 * Runs a script in its own namespace and temporary directory. Both end with this process,
 * however it ends: the script notices its closed channel, and its death ends every
 * process in the namespace.
 */
export const runInside = (
  namespace: readonly string[],
  script: string,
  args: readonly string[],
  /** Takes what the script asks for; whatever else it says are its totals. */
  serve: (message: unknown, child: ChildProcess) => boolean = () => false,
) => {
  const directory = mkdtempSync(join(tmpdir(), 'openclaw-suite-'))
  const child = spawn(UNSHARE, [...namespace, process.execPath, script, ...args], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env: {
      ...process.env,
      TMPDIR: directory,
      [OWN_MOUNTS]: namespace.includes('--mount') ? 'yes' : 'no',
    },
  })
  let totals: Totals | undefined
  child.on('message', (message) => {
    if (!serve(message, child)) totals = message as Totals
  })
  const kill = () => void child.kill('SIGKILL')
  // `unshare` waits for its child and lets these two pass it by.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      kill()
      process.exitCode = 1
    })
  }
  const { promise: exited, resolve } = Promise.withResolvers<number>()
  child.once('exit', (code) => {
    remove(directory)
    resolve(code ?? 1)
  })
  return { exited, kill, totals: () => totals }
}

/** The product writes to /tmp/openclaw whatever TMPDIR says: give it a /tmp that ends with it. */
const hideTmp = (needed: readonly string[]): void => {
  const isNeeded = [import.meta.dirname, ...needed].some((path) => path.startsWith('/tmp/'))
  if (process.env[OWN_MOUNTS] !== 'yes' || isNeeded) return
  const { status } = spawnSync(MOUNT, ['-t', 'tmpfs', '-o', 'mode=1777', 'tmpfs', '/tmp'])
  if (status === 0) process.env['TMPDIR'] = '/tmp'
}

/** Inside: brings loopback up and gives it the pods' addresses. Needed files stay visible also under /tmp. */
export const raisePods = (needed: readonly string[] = []): void => {
  hideTmp(needed)
  execFileSync(IP, ['link', 'set', 'lo', 'up'])
  const pods = Array.from(
    { length: PODS_MAX },
    (_, i) => `addr add ${podAddress(i + 1)}/32 dev lo\n`,
  )
  execFileSync(IP, ['-batch', '-'], { input: pods.join('') })
  process.once('disconnect', () => {
    remove(tmpdir())
    process.exit(1)
  })
  // The runner ends when nothing is left to wait for, and the channel is not to be waited for.
  process.channel?.unref()
}

const remove = (directory: string): void => {
  try {
    rmSync(directory, { recursive: true, force: true, maxRetries: 3 })
  } catch {
    // Somebody still writes to it, and ends with the namespace.
  }
}
