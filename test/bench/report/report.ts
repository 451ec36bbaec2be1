/** A stored run: what was measured, on what machine, and everything that tables and plots need. */

import { cpus, loadavg, release, totalmem } from 'node:os'
import type { Absent, Peer } from '../peers/peer.ts'
import type { Fact, Problem, Result } from '../results.ts'

const GIB = 1024 ** 3

export type Report = {
  readonly takenAt: string
  readonly machine: {
    readonly cpu: string
    readonly cores: number
    readonly memoryGib: number
    readonly kernel: string
    /** The load of the minute before the run: figures of a busy machine are worth little. */
    readonly loadBefore: number
  }
  readonly rounds: number
  readonly windowMs: number
  readonly minutes: number
  readonly peers: readonly { readonly name: string; readonly about: string }[]
  readonly absent: readonly Absent[]
  readonly results: readonly Result[]
  /** Only a run beside other products has some. */
  readonly facts?: readonly Fact[]
  readonly problems: readonly Problem[]
}

/** Above this, something else runs on the machine. */
export const LOAD_QUIET = 0.5

export const describeMachine = (): Report['machine'] => {
  const all = cpus()
  return {
    cpu: all[0]?.model.trim() ?? 'unknown',
    cores: all.length,
    memoryGib: Math.round(totalmem() / GIB),
    kernel: `Linux ${release()}`,
    loadBefore: loadavg()[0] ?? Number.NaN,
  }
}

export const describePeers = (peers: readonly Peer[]): Report['peers'] =>
  peers.map(({ name, about }) => ({ name, about }))
