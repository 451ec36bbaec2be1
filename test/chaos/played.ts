/** A scenario that was played: what it showed, and how a run tells it. */

export type Played = {
  readonly seed: number
  readonly kinds: readonly string[]
  /** The promises that were broken; empty if all held. */
  readonly problems: readonly string[]
  /** From the moment the world was whole again until everybody was in, in milliseconds. */
  readonly backMs: number
  /** From each deletion that nothing disturbed until the stream was closed. */
  readonly revokedMs: readonly number[]
  readonly echoes: number
  readonly streams: number
  readonly strangers: number
  readonly ms: number
  /** What the sidecar said last. */
  readonly log: readonly string[]
}

const PROBLEMS_MAX = 20
const LINE_MAX = 400

const say = (text: string): void => void process.stdout.write(`${text}\n`)

type Day = { readonly problems: string[]; readonly play: () => Promise<void> }

/** Plays a day to its end. What it throws is one of its problems. */
export const playOut = async (day: Day): Promise<void> => {
  try {
    await day.play()
  } catch (error) {
    day.problems.push(error instanceof Error ? error.message : String(error))
  }
}

/** Tells the parent, and who reads the output; `description` is the whole scenario. */
export const tell = (
  played: Played,
  description: string,
  totals: { passed: number; failed: number },
): void => {
  process.send?.({ played })
  const { seed, kinds, problems, log, ms, backMs } = played
  const isOk = problems.length === 0
  totals[isOk ? 'passed' : 'failed'] += 1
  const [seconds, back] = [ms, backMs].map((each) => (each / 1000).toFixed(1))
  say(
    `${isOk ? 'ok    ' : 'not ok'} seed ${seed}: ${kinds.join(', ')} ` +
      `(${seconds} s, all in again after ${back} s)`,
  )
  if (isOk) return
  say(`  ${description}`)
  for (const problem of problems.slice(0, PROBLEMS_MAX)) say(`  ${problem}`)
  for (const line of log) say(`    ${line.slice(0, LINE_MAX)}`)
}
