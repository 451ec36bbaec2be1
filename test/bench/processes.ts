/** What processes have used so far, as Linux reports it: CPU time to the nanosecond, memory by share. */

import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const SETTLE_POLL_MS = 20
const SETTLE_POLLS_MAX = 50
/** A process that uses less than this between two looks has nothing left to do. */
const AT_REST_MS = 0.2

/** A process and all its descendants, threads and workers of a peer included. */
export const processTree = (pid: number): readonly number[] => {
  const children = threadsOf(pid).flatMap((thread) =>
    read(`/proc/${pid}/task/${thread}/children`).split(' ').filter(Boolean).map(Number),
  )
  return [pid, ...children.flatMap(processTree)]
}

/**
 * CPU time of all living threads in milliseconds, user and system. The scheduler's own account is read: that of
 * /proc/PID/stat moves in steps of 10 ms.
 */
export const cpuMs = (pids: readonly number[]): number =>
  sum(
    pids.flatMap((pid) =>
      threadsOf(pid).map(
        (thread) => Number(read(`/proc/${pid}/task/${thread}/schedstat`).split(' ')[0]) / 1e6,
      ),
    ),
  )

/** Like `cpuMs`, once the processes are at rest, so that the work a run left behind counts too. */
export const cpuMsAtRest = async (pids: readonly number[]): Promise<number> => {
  let before = cpuMs(pids)
  for (let polls = 0; polls < SETTLE_POLLS_MAX; polls += 1) {
    await sleep(SETTLE_POLL_MS)
    const now = cpuMs(pids)
    if (now - before < AT_REST_MS) return now
    before = now
  }
  return before
}

export type Memory = { readonly pssKib: number; readonly rssKib: number }

/** The proportional set size, in which memory shared by several processes counts once. */
export const memoryOf = (pids: readonly number[]): Memory => {
  const rollups = pids.map((pid) => read(`/proc/${pid}/smaps_rollup`))
  const field = (name: string) =>
    sum(
      rollups.map((text) => Number(new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0)),
    )
  return { pssKib: field('Pss'), rssKib: field('Rss') }
}

/** The most resident memory they ever had, in KiB; pages that they share count for each. */
export const peakRssKib = (pids: readonly number[]): number =>
  sum(pids.map((pid) => Number(/^VmHWM:\s+(\d+) kB$/m.exec(read(`/proc/${pid}/status`))?.[1] ?? 0)))

/** How many files, and so sockets, one process may have open here. */
export const openFilesMax = (): number => {
  const [, hard = '0'] = /^Max open files +\S+ +(\S+)/m.exec(read('/proc/self/limits')) ?? []
  return hard === 'unlimited' ? Number.MAX_SAFE_INTEGER : Number(hard)
}

const threadsOf = (pid: number): readonly string[] => {
  try {
    return readdirSync(`/proc/${pid}/task`)
  } catch {
    return []
  }
}

/** A thread or process may end between being listed and being read; it then counts as nothing. */
const read = (path: string): string => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

const sum = (values: readonly number[]): number => values.reduce((all, each) => all + each, 0)
