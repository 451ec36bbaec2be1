/** Runs SPIN on the model: makes a verifier, runs it, and reads what it says. */

import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const MODEL = fileURLToPath(new URL('admission.pml', import.meta.url))
const NAME = 'admission.pml'
const MEMORY_MIB_MAX = 6000
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024
/** Steps of all processes; no reduction, since every step is on what all of them share. */
const COMMON = ['-w', '-DNOREDUCE', `-DMEMLIM=${MEMORY_MIB_MAX}`]

export type Verification = {
  readonly states: number
  readonly transitions: number
  readonly memoryMiB: number
  readonly seconds: number
  /** What is broken, in the verifier's words; `undefined` where all holds. */
  readonly broken: string | undefined
  /** Whether every state was seen. */
  readonly isComplete: boolean
  /** Triples of numbers: what can be observed of an admission. */
  readonly observed: readonly string[]
  /** What happens in the counterexample, in order. */
  readonly story: readonly string[]
}

export type Verified = {
  readonly flags: readonly string[]
  readonly build: readonly string[]
  readonly run: readonly string[]
}

/** The programs that are missing here. */
export const listMissing = (): readonly string[] =>
  ['spin', 'gcc'].filter(
    (program) =>
      !(process.env['PATH'] ?? '').split(delimiter).some((dir) => existsSync(join(dir, program))),
  )

export const verify = ({ flags, build, run }: Verified): Verification => {
  const cwd = mkdtempSync(join(tmpdir(), 'admission-model-'))
  try {
    copyFileSync(MODEL, join(cwd, NAME))
    execFileSync('spin', [...flags, '-a', NAME], { cwd, stdio: 'pipe' })
    execFileSync('gcc', [...COMMON, ...build, '-o', 'pan', 'pan.c'], { cwd, stdio: 'pipe' })
    const startedAt = performance.now()
    const { stdout } = spawnSync(join(cwd, 'pan'), ['-n', ...run], {
      cwd,
      encoding: 'utf8',
      maxBuffer: OUTPUT_BYTES_MAX,
    })
    const seconds = (performance.now() - startedAt) / 1000
    const story = existsSync(join(cwd, `${NAME}.trail`)) ? replay(cwd, flags) : []
    return { ...read(stdout), seconds, story }
  } finally {
    rmSync(cwd, { recursive: true })
  }
}

const replay = (cwd: string, flags: readonly string[]): readonly string[] => {
  const { stdout } = spawnSync('spin', [...flags, '-t', NAME], {
    cwd,
    encoding: 'utf8',
    maxBuffer: OUTPUT_BYTES_MAX,
  })
  return [...stdout.matchAll(/^ *~ (.*)$/gmu)].map(([, what = '']) => what)
}

const read = (output: string) => {
  const number = (pattern: RegExp): number => Number(pattern.exec(output)?.[1] ?? Number.NaN)
  return {
    states: number(/^ *([\d.e+]+) states, stored/mu),
    transitions: number(/^ *([\d.e+]+) transitions/mu),
    memoryMiB: number(/^ *([\d.]+)\ttotal actual memory usage/mu),
    broken: /^pan:1: (assertion violated|acceptance cycle).*/mu.exec(output)?.[0],
    isComplete: /errors: 0$/mu.test(output) && !/not completed|too small/u.test(output),
    observed: [...output.matchAll(/^observed (\d+ \d+ \d+)$/gmu)].map(([, triple = '']) => triple),
  }
}
