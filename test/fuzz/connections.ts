/** `npm run fuzz -- --connections N`: many random connections against the bundle, and what they cost it. */

import * as fc from 'fast-check'
import { Silent, playCourse, type Course } from './connection.ts'
import { bytesOf, group, isProven } from './requests.ts'
import { POD_ADDRESS, startFuzzRig, type FuzzRig } from './fuzz-rig.ts'

export type ConnectionsOptions = {
  readonly connections: number
  readonly seed: number
  readonly write: (text: string) => void
  readonly now: () => number
}

/** Made once: it is the sidecar that is to be busy, not the fuzzer. */
const MIXES = 2000
const AT_ONCE = 48
const SILENT_MAX = 200
const MIX_BYTES_MAX = 20_000
/** More than one address has ports for: they are cut off, but those the sidecar ends first linger. */
const ADDRESSES = 2000
const REPORTS = 10
/** What may be grown from a tenth of the way on: the collector keeps some garbage at any moment. */
const RSS_GROWTH_MIB_MAX = 32
const MIB = 1024 * 1024

type Mix = {
  readonly bytes: Buffer
  readonly course: Course
  readonly isProven: boolean
}

/** Whether the sidecar is alive, let nobody in without proof and kept nothing. */
export const playConnections = async (options: ConnectionsOptions): Promise<boolean> => {
  const { connections, seed, write, now } = options
  write(`${connections} connections, seed ${seed}\n`)
  const rig = await startFuzzRig({ asProcess: true })
  try {
    const mixes = mixesOf(rig, seed)
    const before = { descriptors: rig.descriptors(), rssMib: await rssMib(rig) }
    const startedAt = now()
    const rssMibs = [before.rssMib]
    let proven = 0
    const silent = new Silent(SILENT_MAX)
    for (let done = 0, part = 1; part <= REPORTS && !isDead(rig); part += 1) {
      const end = Math.round((connections * part) / REPORTS)
      proven += await playPart({ rig, mixes, silent, from: done, end })
      done = end
      rssMibs.push(await rssMib(rig))
      const seconds = ((now() - startedAt) / 1000).toFixed(0)
      write(`${done} connections in ${seconds} s, sidecar ${rssMibs.at(-1)?.toFixed(0)} MiB\n`)
    }
    silent.end()
    const problems = await findProblems(rig, { rssMibs, proven })
    const [, afterTenth = Number.NaN] = rssMibs
    write(
      [
        `alive           ${isDead(rig) ? 'no' : 'yes'}`,
        `RSS             ${mib(before.rssMib)} at the start, ${mib(afterTenth)} after a tenth, ${mib(rssMibs.at(-1))} at the end`,
        `descriptors     ${before.descriptors} before, ${isDead(rig) ? 'none' : rig.descriptors()} after`,
        `pending sockets ${isDead(rig) ? 'none' : (await rig.metrics()).get('pending_sockets')}`,
        `with a token    ${proven}, of which ${rig.foreignHandshakes()} reached the gateway`,
        ...problems.map((problem) => `BROKEN ${problem}`),
        '',
      ].join('\n'),
    )
    return problems.length === 0
  } finally {
    await rig.stop()
  }
}

const mixesOf = (rig: FuzzRig, seed: number): readonly Mix[] =>
  fc
    .sample(group, { numRuns: MIXES, seed })
    .flat()
    .map((hostile) => ({
      bytes: bytesOf(hostile, rig.token),
      course: hostile.course,
      isProven: isProven(hostile),
    }))
    .filter(({ bytes }) => bytes.length < MIX_BYTES_MAX)

type PartOptions = {
  readonly rig: FuzzRig
  readonly mixes: readonly Mix[]
  readonly silent: Silent
  readonly from: number
  readonly end: number
}

/** Resolves with how many showed a good token. */
const playPart = async ({ rig, mixes, silent, from, end }: PartOptions): Promise<number> => {
  let next = from
  let proven = 0
  const lane = async (): Promise<void> => {
    while (next < end && !isDead(rig)) {
      const nth = next
      next += 1
      const mix = mixes[nth % mixes.length]
      if (mix === undefined) return
      if (mix.isProven) proven += 1
      const localAddress = mix.isProven ? POD_ADDRESS : addressOf(nth)
      await playCourse({ port: rig.port, localAddress }, mix.bytes, mix.course, silent)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, lane))
  return proven
}

const addressOf = (nth: number): string => {
  const host = nth % ADDRESSES
  return `127.0.${1 + Math.floor(host / 250)}.${1 + (host % 250)}`
}

type Seen = { readonly rssMibs: readonly number[]; readonly proven: number }

const findProblems = async (
  rig: FuzzRig,
  { rssMibs, proven }: Seen,
): Promise<readonly string[]> => {
  try {
    await rig.assertUnchanged()
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)]
  }
  const [, afterTenth = 0] = rssMibs
  const grownMib = (rssMibs.at(-1) ?? 0) - afterTenth
  return [
    ...(grownMib > RSS_GROWTH_MIB_MAX ? [`the sidecar has grown by ${mib(grownMib)}`] : []),
    ...(rig.foreignHandshakes() > proven ? ['somebody got in without proof'] : []),
  ]
}

const isDead = (rig: FuzzRig): boolean => rig.whyEnded() !== undefined
const rssMib = async (rig: FuzzRig): Promise<number> =>
  ((await rig.metrics().catch(() => undefined))?.get('process_resident_memory_bytes') ??
    Number.NaN) / MIB
const mib = (value: number | undefined): string => `${value?.toFixed(0)} MiB`
