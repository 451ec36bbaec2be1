/** One day: plays a schedule on a world, and asks the oracle after every step. */

import { HAPPENINGS } from './happenings.ts'
import { isQuiet, judgeBooks, judgeRest, judgeVerdicts, scrape } from './night.ts'
import { DAY_MS, type Schedule } from './schedule.ts'
import { ACCOUNTS, REVIEW_MS, startWorld, type World } from './world.ts'

export type DayResult = {
  readonly violation: string | undefined
  readonly trace: readonly string[]
  readonly steps: number
  readonly admitted: number
  readonly attempts: number
  readonly simulatedMs: number
}

/** The longest until a healed world is quiet. */
const QUIET_MS_MAX = 300_000
/** After the world has healed, everybody who may get in is in within this time. */
const RECOVERY_MS = 240_000
/** Close frames, the last lines of the audit, and the verdicts on tokens need this long. */
const LEAVING_MS = 62_000
const PATIENCE_MS = 60_000
/** Those who come late are under review by then. */
const LATE_MS = 700
const TRACE_MAX = 20_000
const TOKEN_RENEWAL_MS = 300_000

export const playDay = async (seed: number, schedule: Schedule): Promise<DayResult> => {
  const trace: string[] = []
  const { speech, pods, events, ...rest } = schedule
  const world = await startWorld({ seed, speech, ...rest })
  const tell = (what: string): void => {
    if (trace.length < TRACE_MAX) trace.push(`${String(world.now()).padStart(8)} ${what}`)
  }
  const { clock, oracle } = world
  let steps = 0
  /** A promise was broken: what follows is not judged. */
  let isOver = false
  const startMs = world.now()
  /** Plays until then; false once a promise is broken. */
  const playUntil = async (endMs: number, isDone = () => false): Promise<boolean> => {
    for (;;) {
      await world.rest()
      steps += 1
      world.look()
      if (oracle.violation !== undefined && !isOver) return false
      if (isDone()) return true
      const next = clock.nextInMs
      const left = endMs - world.now()
      if (left <= 0) return true
      clock.advance(next === undefined ? left : Math.min(next, left))
    }
  }
  /** Plays until something is done. */
  const playWhile = async <T>(work: Promise<T>): Promise<T> => {
    let isDone = false
    const mark = () => (isDone = true)
    work.then(mark, mark)
    await playUntil(world.now() + PATIENCE_MS, () => isDone)
    if (!isDone) oracle.fail('the sidecar does not answer')
    return work
  }
  const parts = [
    async () => {
      tell(`${speech}, ${pods} pods`)
      for (let n = 0; n < pods; n += 1) {
        world.createPod(ACCOUNTS[n % ACCOUNTS.length] ?? ACCOUNTS[0])
      }
      for (const { atMs, kind, dice } of events) {
        if (!(await playUntil(startMs + atMs))) return
        tell(`${kind} ${dice.map((die) => die.toFixed(3)).join(' ')}`)
        HAPPENINGS[kind](world, dice)
      }
      const lastMs = events.at(-1)?.atMs ?? 0
      await playUntil(startMs + Math.min(DAY_MS, lastMs + 60_000))
    },
    async () => {
      tell('the world heals')
      world.heal()
      world.renewTokens()
      await playUntil(world.now() + RECOVERY_MS, () => waiting(world).length === 0)
      for (const { name, uid } of waiting(world)) {
        const ends = [...oracle.attempts.values()].filter(({ podUid }) => podUid === uid)
        const last = ends.slice(-3).map(({ end }) => end ?? 'no answer')
        oracle.fail(`${name} waits for ever: ${last.join(', ')}`)
      }
    },
    async () => {
      // The pods that terminate go meanwhile.
      await playUntil(world.now() + QUIET_MS_MAX, () => isQuiet(world))
      tell('everybody leaves')
      stopRenewal()
      world.comeLate()
      await playUntil(world.now() + LATE_MS)
      world.dismiss()
      world.deletePods()
      await playUntil(world.now() + REVIEW_MS + LATE_MS)
      judgeVerdicts(await playWhile(scrape(world)), world)
      if (!(await playUntil(world.now() + LEAVING_MS))) return
      judgeBooks(await playWhile(scrape(world)), world)
    },
    async () => {
      tell('the sidecar stops')
      await playWhile(world.sidecar.stop())
      world.gateway.stopTicking()
      await playUntil(world.now() + LEAVING_MS)
      judgeRest(world)
    },
  ]
  let stopRenewal = () => {}
  const renew = () => {
    world.renewTokens()
    stopRenewal = clock.after(TOKEN_RENEWAL_MS, renew)
  }
  renew()
  for (const part of parts) if (oracle.violation === undefined) await part()
  if (oracle.violation !== undefined) {
    for (const line of oracle.lastLines) tell(line)
    tell(oracle.violation)
    world.dismiss()
    isOver = true
    let isStopped = false
    const mark = () => (isStopped = true)
    world.sidecar.stop().then(mark, mark)
    await playUntil(world.now() + PATIENCE_MS, () => isStopped)
  }
  const simulatedMs = world.now() - startMs
  await world.close()
  return {
    violation: oracle.violation,
    trace,
    steps,
    admitted: oracle.audited.admitted,
    attempts: oracle.attempts.size,
    simulatedMs,
  }
}

/** Pods that may get in, and are not. */
const waiting = (world: World) =>
  world
    .livePods()
    .filter(
      ({ account, uid }) =>
        world.isAllowed(account) &&
        world.accountUid(account) !== '' &&
        world.workers.get(uid)?.isServed !== true,
    )
