/** What is possible only on a private cluster: its signing key, and its API server as a process. */

import { spawn } from 'node:child_process'
import { createPrivateKey, type KeyObject } from 'node:crypto'
import { closeSync, existsSync, openSync, readdirSync } from 'node:fs'
import { readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Kubeconfig } from './kubeconfig.ts'

/** The key that signs ServiceAccount tokens, if it is next to the kubeconfig. */
export const findSigningKey = ({ directory }: Kubeconfig): KeyObject | undefined => {
  const path = join(directory, 'pki', 'sa.key')
  return existsSync(path) ? createPrivateKey(readFileSync(path)) : undefined
}

export type ApiServerProcess = {
  readonly freeze: () => void
  readonly thaw: () => void
  readonly kill: () => void
  /** Starts it again just as it was started before, where its own tools find it. */
  readonly start: () => void
}

/**
 * The API server as a process, where the kubeconfig lies in the state of a cluster whose pid files
 * hold `PID STARTTIME`. The start time tells it from another process with the same number.
 */
export const findApiServer = ({ directory }: Kubeconfig): ApiServerProcess | undefined => {
  const pidFile = join(directory, '..', '..', 'run', 'api-kube-apiserver.pid')
  if (!existsSync(pidFile)) return undefined
  const [pid = '', startTime] = readFileSync(pidFile, 'utf8').trim().split(' ')
  if (startTimeOf(pid) !== startTime) return undefined
  const [program = '', ...args] = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
    .split('\0')
    .slice(0, -1)
  const logFile = readlinkSync(`/proc/${pid}/fd/1`)
  let current = Number(pid)
  return {
    freeze: () => void process.kill(current, 'SIGSTOP'),
    thaw: () => void process.kill(current, 'SIGCONT'),
    kill: () => void process.kill(current, 'SIGKILL'),
    start() {
      awaitGone(current)
      const log = openSync(logFile, 'a')
      const child = spawn(program, args, { detached: true, stdio: ['ignore', log, log] })
      child.unref()
      closeSync(log)
      current = child.pid ?? 0
      writeFileSync(pidFile, `${current} ${startTimeOf(String(current))}\n`)
    },
  }
}

/** A killed process holds its port until its last thread is gone, and the next one would not get it. */
const awaitGone = (pid: number): void => {
  const nap = new Int32Array(new SharedArrayBuffer(4))
  for (let naps = 0; naps < 200 && hasThreads(String(pid)); naps += 1) Atomics.wait(nap, 0, 0, 50)
}

/** The first thread can be a zombie while others still hold the shared resources. */
const hasThreads = (pid: string): boolean => {
  try {
    return readdirSync(`/proc/${pid}/task`).some(
      (thread) => statOf(`${pid}/task/${thread}`)?.[0] !== 'Z',
    )
  } catch {
    return false
  }
}

const startTimeOf = (pid: string): string | undefined => {
  const fields = statOf(pid)
  // A zombie has let go of everything but its number.
  return fields?.[0] === 'Z' ? undefined : fields?.[19]
}

/** The fields of /proc/PID/stat from the third on, counted behind the program's name, which may hold spaces. */
const statOf = (path: string): readonly string[] | undefined => {
  try {
    const stat = readFileSync(`/proc/${path}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined
  }
}
