/** How each kind of fault begins and ends, and which promises it bends. */

import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  rmdirSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import type { ChaosWorker } from './worker.ts'
import { PORTS, type World } from './world.ts'
import type { Kind } from './schedule.ts'

/**
 * - `watch`: a deletion may be heard of late.
 * - `cut`: a worker may see its stream end without a code.
 * - `clock`: a good token may be told to be too old or too new.
 * - `restart`: the sidecar begins to count from 0.
 */
type Bend = 'watch' | 'cut' | 'clock' | 'restart'

type Fault = {
  readonly bends: readonly Bend[]
  readonly begin: (context: FaultContext) => unknown
  readonly end: (context: FaultContext) => unknown
}

export type FaultContext = {
  readonly world: World
  readonly workers: readonly ChaosWorker[]
  /** Those whose pods are gone, too. */
  readonly everybody: readonly ChaosWorker[]
  /** From 0 to 1. */
  readonly force: number
}

const DELAY_MS_MAX = 1500
const DNS_DELAY_MS_MAX = 6000
const LOSS_MAX = 0.35
const JUMP_SECONDS_MAX = 3 * 3600
const SPARE_DESCRIPTORS_MAX = 6
const DESCRIPTORS = 4096
const MEMORY_MAX = '224M'
const SLOW_READERS_MAX = 4
const BLOCK = 4096
const MEMORY_GROUPS = '/sys/fs/cgroup/memory'
const MEMORY_GROUP = join(MEMORY_GROUPS, 'sidecar-chaos')

const signal = (pid: number | undefined, name: NodeJS.Signals): void => {
  if (pid !== undefined) process.kill(pid, name)
}
const delayOf = (force: number): number => Math.ceil(force * DELAY_MS_MAX)

/** Fills what is left of a disk. */
const fill = (disk: string): void => {
  const { bfree } = statfsSync(disk)
  if (bfree > 0) writeFileSync(join(disk, 'filler'), Buffer.alloc(bfree * BLOCK))
}
const empty = (disk: string): void => rmSync(join(disk, 'filler'), { force: true })

const rules = (act: '-A' | '-D', port: number, force: number): void => {
  const probability = (0.05 + force * (LOSS_MAX - 0.05)).toFixed(3)
  for (const side of ['--dport', '--sport']) {
    const match = ['-i', 'lo', '-p', 'tcp', side, String(port)]
    const chance = ['-m', 'statistic', '--mode', 'random', '--probability', probability]
    execFileSync('iptables', ['-w', act, 'INPUT', ...match, ...chance, '-j', 'DROP'])
  }
}

const loss = (port: number, bends: readonly Bend[]): Fault => ({
  bends,
  begin: ({ force }) => rules('-A', port, force),
  end: ({ force }) => rules('-D', port, force),
})

type LegName = keyof World['relays']

const onLeg = (
  leg: LegName,
  bends: readonly Bend[],
  act: (relay: World['relays'][LegName], force: number) => void,
): Fault => ({
  bends,
  begin: ({ world, force }) => act(world.relays[leg], force),
  end: ({ world }) => world.relays[leg].heal(),
})

const leg = (name: LegName, bends: readonly Bend[]) => ({
  delayed: onLeg(name, bends, (relay, force) => relay.delay(delayOf(force))),
  stalled: onLeg(name, bends, (relay) => relay.stall()),
  reset: onLeg(name, bends, (relay) => relay.reset()),
  lost: onLeg(name, bends, (relay) => relay.lose()),
})

const api = leg('api', ['watch'])
const gateway = leg('gateway', [])
const workers = leg('workers', ['watch', 'cut'])

const freeze = (pidOf: (world: World) => number | undefined, bends: readonly Bend[]): Fault => ({
  bends,
  begin: ({ world }) => signal(pidOf(world), 'SIGSTOP'),
  end: ({ world }) => signal(pidOf(world), 'SIGCONT'),
})

const restart = (name: NodeJS.Signals): Fault => ({
  bends: ['watch', 'cut', 'restart'],
  begin: ({ world }) => world.endSidecar(name),
  end: ({ world }) => world.restartSidecar(),
})

const jump = (direction: 1 | -1): Fault => ({
  bends: ['clock', 'watch'],
  begin: ({ world, force }) => world.setClock(direction * Math.ceil(force ** 3 * JUMP_SECONDS_MAX)),
  end: ({ world }) => world.setClock(0),
})

const limitDescriptors = (world: World, limitOf: () => number): void => {
  const pid = world.sidecarPid()
  if (pid !== undefined) execFileSync('prlimit', [`--pid=${pid}`, `--nofile=${limitOf()}:`])
}

const enter = (group: string, pid: number): void =>
  writeFileSync(join(group, 'cgroup.procs'), String(pid))

/** With a limit by cgroup v1 where this machine has it; elsewhere the heap alone is bounded. */
const littleMemory: Fault = {
  bends: ['watch'],
  begin({ world, workers: all }) {
    for (const worker of all.slice(0, SLOW_READERS_MAX)) worker.setReading(false)
    const pid = world.sidecarPid()
    if (pid === undefined || !existsSync(join(MEMORY_GROUPS, 'memory.limit_in_bytes'))) return
    mkdirSync(MEMORY_GROUP)
    writeFileSync(join(MEMORY_GROUP, 'memory.limit_in_bytes'), MEMORY_MAX)
    enter(MEMORY_GROUP, pid)
  },
  end({ world, everybody }) {
    for (const worker of everybody) worker.setReading(true)
    if (!existsSync(MEMORY_GROUP)) return
    const pid = world.sidecarPid()
    if (pid !== undefined) enter(MEMORY_GROUPS, pid)
    rmdirSync(MEMORY_GROUP)
  },
}

/** A crude writer leaves half a file behind; the kubelet writes nothing. */
const fullDisk: Fault = {
  bends: ['watch'],
  async begin({ world, force }) {
    const name = ['token', 'ca.crt', 'config.json'][Math.floor(force * 3)] ?? 'token'
    truncateSync(join(world.files, name), name === 'token' ? 0 : 200)
    fill(world.files)
    const swapped = await world.rotate().then(
      () => true,
      () => false,
    )
    if (swapped) throw new Error('the disk of the files was not full')
  },
  async end({ world }) {
    empty(world.files)
    await world.rotate()
  },
}

export const FAULTS: Readonly<Record<Kind, Fault>> = {
  'freeze the sidecar': freeze((world) => world.sidecarPid(), ['watch']),
  'kill the sidecar': restart('SIGKILL'),
  'terminate the sidecar': restart('SIGTERM'),
  'freeze the gateway': freeze((world) => world.gatewayPid(), []),
  'kill the gateway': {
    bends: [],
    begin: ({ world }) => world.killGateway(),
    end: ({ world }) => world.restartGateway(),
  },
  'freeze the API server': {
    bends: ['watch'],
    begin: ({ world }) => world.apiServer('freeze'),
    end: ({ world }) => world.apiServer('thaw'),
  },
  'kill the API server': {
    bends: ['watch'],
    begin: ({ world }) => world.apiServer('kill'),
    async end({ world }) {
      await world.apiServer('start')
      await world.apiServerReady()
    },
  },
  'delay the API server': api.delayed,
  'stall the API server': api.stalled,
  'reset the API server': api.reset,
  'lose the API server without a word': api.lost,
  'delay the gateway': gateway.delayed,
  'stall the gateway': gateway.stalled,
  'reset the gateway': gateway.reset,
  'delay the workers': workers.delayed,
  'stall the workers': workers.stalled,
  'reset the workers': workers.reset,
  'lose packets of the workers': loss(PORTS.workers, ['watch', 'cut']),
  'lose packets of the gateway': loss(PORTS.gatewayRelay, []),
  'lose packets of the API server': loss(PORTS.apiRelay, ['watch']),
  'slow DNS': {
    bends: ['watch'],
    begin: ({ world, force }) => world.resolver.slow(Math.ceil(force * DNS_DELAY_MS_MAX)),
    end: ({ world }) => world.resolver.heal(),
  },
  'no DNS': {
    bends: ['watch'],
    begin: ({ world }) => world.resolver.silence(),
    end: ({ world }) => world.resolver.heal(),
  },
  'use up its descriptors': {
    bends: ['watch'],
    begin: ({ world, force }) =>
      limitDescriptors(
        world,
        () => world.allDescriptors() + Math.floor(force * SPARE_DESCRIPTORS_MAX),
      ),
    end: ({ world }) => limitDescriptors(world, () => DESCRIPTORS),
  },
  'fill the disk of its files': fullDisk,
  'fill the disk of its audit': {
    bends: [],
    begin: ({ world }) => fill(world.disk),
    end: ({ world }) => empty(world.disk),
  },
  'slow readers in little memory': littleMemory,
  'jump ahead': jump(1),
  'jump back': jump(-1),
}
