/** What else the machine did meanwhile: figures taken during other work are worth less, and must say so. */

import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'

const TICKS_A_SECOND = 100

export type Machine = {
  /** CPU seconds all processes have used. */
  readonly busySeconds: number
  /** Of them those of ours. */
  readonly oursSeconds: number
}

/** CPU time since the start (proc(5)); only Linux reports it. */
export const readMachine = (pids: readonly number[]): Machine => {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = readFileSync(
    '/proc/stat',
    'utf8',
  )
    .slice(5, 200)
    .trim()
    .split(/\s+/)
    .map(Number)
  return {
    busySeconds: (user + nice + system + irq + softirq) / TICKS_A_SECOND,
    oursSeconds: pids.reduce((sum, pid) => sum + cpuSecondsOf(pid), 0),
  }
}

const cpuSecondsOf = (pid: number): number => {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND
}

/** The share of the machine that others used between two readings, from 0 to 1. */
export const shareOfOthers = (before: Machine, after: Machine, seconds: number): number => {
  const busy = after.busySeconds - before.busySeconds
  const ours = after.oursSeconds - before.oursSeconds
  return Math.max(0, busy - ours) / (seconds * availableParallelism())
}
