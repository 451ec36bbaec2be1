/** The fuzz runner: plays rounds of every promise in turn until the time is up, and says how to replay. */

import { parseArgs } from 'node:util'
import { playRound, reasonOf, type Failure } from './round.ts'
import type { TargetRig, Property, Target } from './target.ts'

export type Runtime = {
  readonly targets: readonly Target[]
  readonly write: (text: string) => void
  /** Milliseconds of a clock that only goes forward. */
  readonly now: () => number
  /** The base seed of a run that names none. */
  readonly drawSeed: () => number
  /** Errors that nobody caught since the last call. */
  readonly takeUncaught: () => readonly unknown[]
}

export type FuzzOptions = {
  readonly seconds: number
  readonly target: string | undefined
  readonly promise: string | undefined
  readonly seed: number | undefined
  /** Straight to one input of the first round, as fast-check names it. */
  readonly path: string | undefined
  /** Instead of all that: this many random connections. */
  readonly connections: number | undefined
}

export const USAGE = `Usage: npm run fuzz -- [option…]

  --seconds N        how long, for all targets together (default 60)
  --target NAME      one target alone
  --promise TEXT     one promise alone
  --seed S           the seed of the first round; drawn and printed without it
  --path P           straight to one input, as a failure names it: one round is played
  --connections N    instead: N random connections against the bundle, with figures
`

export const EXIT = { ok: 0, failed: 1, usage: 64 } as const

/** Seeds of fast-check are 32-bit integers. */
const SEED_END = 2 ** 31

export const readOptions = (argv: readonly string[]): FuzzOptions | undefined => {
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: {
        seconds: { type: 'string', default: '60' },
        target: { type: 'string' },
        promise: { type: 'string' },
        seed: { type: 'string' },
        path: { type: 'string' },
        connections: { type: 'string' },
      },
    })
    return {
      seconds: wholeNumber(values.seconds),
      target: values.target,
      promise: values.promise,
      seed: values.seed === undefined ? undefined : wholeNumber(values.seed),
      path: values.path,
      connections: values.connections === undefined ? undefined : wholeNumber(values.connections),
    }
  } catch {
    return undefined
  }
}

/** Resolves with the exit code. */
export const fuzz = async (options: FuzzOptions, runtime: Runtime): Promise<number> => {
  const { target: name, seconds } = options
  const targets = runtime.targets.filter((target) => name === undefined || target.name === name)
  if (targets.length === 0) {
    runtime.write(`${USAGE}\nTargets: ${runtime.targets.map((target) => target.name).join(', ')}\n`)
    return EXIT.usage
  }
  const baseSeed = options.seed ?? runtime.drawSeed()
  runtime.write(`${targets.length} targets, ${seconds} s, seed ${baseSeed}\n`)
  let failed = 0
  for (const target of targets) {
    const sliceMs = (seconds * 1000) / targets.length
    if (!(await fuzzTarget(target, { options, baseSeed, sliceMs, runtime }))) failed += 1
  }
  runtime.write(`${targets.length - failed} passed, ${failed} failed, 0 skipped\n`)
  return failed === 0 ? EXIT.ok : EXIT.failed
}

type Play = {
  readonly options: FuzzOptions
  readonly baseSeed: number
  readonly sliceMs: number
  readonly runtime: Runtime
}

/** Whether every promise of the target held. */
const fuzzTarget = async (target: Target, play: Play): Promise<boolean> => {
  const { runtime, options } = play
  const startedAt = runtime.now()
  const rig = await target.open({ asProcess: true })
  const outcome = await playAndClose(rig, play)
  const lasted = ((runtime.now() - startedAt) / 1000).toFixed(1)
  const summary = `${target.name}: ${outcome.inputs} inputs in ${lasted} s`
  for (const failure of outcome.failures) runtime.write(describe(target.name, failure))
  if (outcome.inputs === 0) runtime.write(`there is nothing to try of ${options.promise}\n`)
  const isOk = outcome.failures.length === 0 && outcome.inputs > 0
  runtime.write(`${isOk ? 'ok' : 'not ok'} ${summary}\n`)
  return isOk
}

const playAndClose = async (rig: TargetRig, play: Play): Promise<Outcome> => {
  try {
    return await playRounds(rig, play)
  } finally {
    await rig.close()
  }
}

type Outcome = {
  inputs: number
  readonly failures: Failure[]
}

/** At least one round of each promise; one that broke is not tried again. */
const playRounds = async (rig: TargetRig, play: Play): Promise<Outcome> => {
  const { runtime, baseSeed, options, sliceMs } = play
  const { path, promise } = options
  const until = runtime.now() + sliceMs
  const wanted = rig.properties.filter((each) => promise === undefined || each.promise === promise)
  let left: readonly Property[] = wanted
  const outcome: Outcome = { inputs: 0, failures: [] }
  for (let round = 0; left.length > 0; round += 1) {
    for (const property of left) {
      const seed = (baseSeed + round) % SEED_END
      const failure =
        (await playRound(rig, property, { seed, path })) ?? uncaughtOf(property, seed, runtime)
      outcome.inputs += path === undefined ? property.runs : 1
      if (failure === undefined) continue
      outcome.failures.push(failure)
      left = left.filter((each) => each !== property)
    }
    if (path !== undefined || runtime.now() >= until) break
  }
  return outcome
}

const uncaughtOf = (
  { promise }: Property,
  seed: number,
  { takeUncaught }: Runtime,
): Failure | undefined => {
  const [error] = takeUncaught()
  if (error === undefined) return undefined
  const counterexample = 'some input of the round'
  return { promise, seed, counterexample, reason: `nobody caught: ${reasonOf(error)}` }
}

const describe = (target: string, failure: Failure): string => {
  const { promise, seed, path, counterexample, reason } = failure
  const toInput = path === undefined ? '' : ` --path ${path}`
  return [
    `BROKEN ${target}: ${promise}`,
    `  seed ${seed}${path === undefined ? '' : `, path ${path}`}`,
    `  input: ${counterexample}`,
    `  ${reason.replaceAll('\n', '\n  ')}`,
    `  replay: npm run fuzz -- --seconds 1 --target ${target} --promise ${quote(promise)} --seed ${seed}${toInput}`,
    '',
  ].join('\n')
}

/** For a POSIX shell. */
const quote = (text: string): string => `'${text.replaceAll("'", String.raw`'\''`)}'`

const wholeNumber = (text: string): number => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 0) throw new RangeError(`${text} is not a whole number`)
  return value
}
