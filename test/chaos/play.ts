/** Plays one scenario and says which promises it broke, seen from outside. */

import { setTimeout as sleep } from 'node:timers/promises'
import type { Pod } from '../cluster/cluster-rig.ts'
import { AUDIENCE, WORKER } from '../cluster/cluster-rig.ts'
import { podAddress } from '../kit/namespace.ts'
import type { SeededRandom } from '../kit/soak.ts'
import { waitForProcess } from '../kit/wait.ts'
import { comeUntilDenied, deniedBy, judgeAnswer, type Verdict } from './answers.ts'
import { judgeBooks, judgeOutputs, judgeRest } from '../kit/books.ts'
import { FAULTS, type FaultContext } from './faults.ts'
import type { FaultPlan, Scenario } from './schedule.ts'
import { forge, Strangers, tryIn, type Stranger, type Trial } from './strangers.ts'
import { playOut, type Played } from './played.ts'
import { REVOKED_WITHIN_MS, Troubles } from './troubles.ts'
import { ChaosWorker } from './worker.ts'
import { PORTS, startWorld, type Ground, type World } from './world.ts'

type Deleted = {
  readonly worker: ChaosWorker
  /** When the API server said so. */
  readonly at: number
}

const FIRST_IN_MS = 30_000
/** Everybody who may get in is in again within this time after the world is whole. */
const BACK_WITHIN_MS = 60_000
/** A watch that was cut is opened again after a pause of at most 3 s, and a busy machine is slow. */
const WATCH_TROUBLE_TAIL_MS = 6000
const API_DEADLINE_MS = 60_000
/** Gathered lines are written after a second. */
const LINES_MS = 1500
/** A worker that is entitled is refused with these at most: ask again. */
const ASK_AGAIN = new Set([408, 429, 502, 503])
const STRANGER_ADDRESSES = { first: 241, count: 6 }
const WORKER_ADDRESSES = 240
const LOG_LINES = 25
const ABNORMAL = 1006

let addresses = 0
/** Another one for each pod: what remembers the last one must not help. */
const nextAddress = (): string => {
  addresses = (addresses % WORKER_ADDRESSES) + 1
  return podAddress(addresses)
}

export const play = async (scenario: Scenario, ground: Ground): Promise<Played> => {
  const startedAt = performance.now()
  const has = (kind: string) => scenario.faults.some((fault) => fault.kind === kind)
  const world = await startWorld(ground, {
    hasClockOfItsOwn: has('jump ahead') || has('jump back'),
    auditsToDisk: has('fill the disk of its audit'),
  })
  const day = new Day(scenario, ground, world)
  await playOut(day)
  await day.leave().catch(() => {})
  await world.stop()
  return {
    seed: scenario.seed,
    kinds: scenario.faults.map(({ kind }) => kind),
    problems: day.problems,
    backMs: day.backMs,
    revokedMs: day.revokedMs,
    echoes: sum(day.everybody, ({ echoes }) => echoes),
    streams: sum(day.everybody, ({ admitted }) => admitted),
    strangers: day.trials.length,
    ms: performance.now() - startedAt,
    log: world.log().slice(-LOG_LINES),
  }
}

const sum = <T>(all: readonly T[], pick: (each: T) => number): number =>
  all.reduce((total, each) => total + pick(each), 0)

class Day {
  readonly problems: string[] = []
  backMs = Number.NaN
  readonly revokedMs: number[] = []
  readonly everybody: ChaosWorker[] = []
  readonly trials: Trial[] = []
  readonly #scenario: Scenario
  readonly #ground: Ground
  readonly #world: World
  readonly #deleted: Deleted[] = []
  readonly #living: ChaosWorker[] = []
  /** When a deletion may be heard of late. */
  readonly #troubles = new Troubles(WATCH_TROUBLE_TAIL_MS)
  readonly #ends: (() => Promise<void>)[] = []
  #strangers: Strangers | undefined
  #foreign: readonly Stranger[] = []
  #ownPods: Pod[] = []

  constructor(scenario: Scenario, ground: Ground, world: World) {
    this.#scenario = scenario
    this.#ground = ground
    this.#world = world
  }

  async play(): Promise<void> {
    const { seed, pods, faults, churn } = this.#scenario
    const world = this.#world
    await world.gatewayReady()
    await world.ready()
    const descriptorsAtRest = world.descriptors()
    await Promise.all(Array.from({ length: pods }, () => this.#createWorker()))
    this.#foreign = await this.#foreigners()
    await waitForProcess('the first workers', FIRST_IN_MS, () => this.#living.every(hasEchoed(0)))
    this.#strangers = new Strangers(seed, (random) => this.#drawStranger(random))
    this.#strangers.begin()

    const began = performance.now()
    const until = (atMs: number) => sleep(Math.max(0, began + atMs - performance.now()))
    const faulty = faults.map(async (fault) => {
      await until(fault.atMs)
      await this.#breakOnce(fault)
    })
    const moving = churn.map(async ({ atMs, what, die }) => {
      await until(atMs)
      await (what === 'create' ? this.#createWorker() : this.#deleteWorker(die))
    })
    await Promise.all(faulty)
    await world.gatewayReady()
    await world.ready()
    await Promise.all(moving)
    await this.#judgeRecovery()
    await this.#judgeRevocations()
    await this.#strangers.stop()
    this.#judgeStrangers(this.#strangers.trials)
    await this.#lastStrangers()
    this.#judgeWorkers()
    await this.leave()
    await sleep(LINES_MS)
    const metrics = await world.metrics()
    this.problems.push(
      ...world.problems,
      ...judgeOutputs(world, [...this.everybody.map(({ token }) => token), ...world.ownTokens]),
      ...judgeRest(metrics, world.descriptors() - descriptorsAtRest),
      ...(this.#bends('restart') ? [] : judgeBooks(metrics, world.audit())),
    )
    const exit = await world.endSidecar('SIGTERM')
    if (exit.code !== 0) this.problems.push(`its end was ${exit.signal ?? exit.code}, not 0`)
  }

  async leave(): Promise<void> {
    for (const end of this.#ends.splice(0)) await end().catch(() => {})
    await this.#strangers?.stop()
    await Promise.all(this.everybody.map((worker) => worker.leave()))
    const { cluster } = this.#ground
    const left = [...this.#living.splice(0).map(({ pod }) => pod), ...this.#ownPods.splice(0)]
    await Promise.all(left.map((pod) => cluster.deletePod(pod).catch(() => {})))
  }

  #bends(what: 'cut' | 'clock' | 'restart'): boolean {
    return this.#scenario.faults.some(({ kind }) => FAULTS[kind].bends.includes(what))
  }

  async #breakOnce({ kind, forMs, force }: FaultPlan): Promise<void> {
    const { begin, end, bends } = FAULTS[kind]
    const context: FaultContext = {
      world: this.#world,
      workers: this.#living,
      everybody: this.everybody,
      force,
    }
    const window = { from: performance.now(), until: Infinity }
    if (bends.includes('watch')) this.#troubles.add(window)
    let isOver = false
    const endOnce = async () => {
      if (isOver) return
      isOver = true
      await end(context)
      window.until = performance.now()
    }
    this.#ends.push(endOnce)
    await begin(context)
    await sleep(forMs)
    await endOnce()
  }

  async #createWorker(): Promise<void> {
    const { cluster } = this.#ground
    const ip = nextAddress()
    const made = await waitForProcess('a pod', API_DEADLINE_MS, async () => {
      const pod = await cluster.createPod({ ip, terminationGracePeriodSeconds: 1 })
      this.#ownPods.push(pod)
      return { pod, token: await cluster.mint({ pod }) }
    })
    const { pod, token } = made
    const worker = new ChaosWorker(pod, token, PORTS.workersRelay, this.#scenario.seed + addresses)
    this.everybody.push(worker)
    this.#living.push(worker)
    worker.live()
  }

  async #deleteWorker(die: number): Promise<void> {
    // Somebody has to be left who can come back.
    if (this.#living.length < 2) return
    const [worker] = this.#living.splice(Math.floor(die * this.#living.length), 1)
    if (worker === undefined) return
    await waitForProcess('a deletion', API_DEADLINE_MS, () =>
      this.#ground.cluster.deletePod(worker.pod).then(
        () => true,
        (error: unknown) => String(error).includes(': 404 '),
      ),
    )
    this.#deleted.push({ worker, at: performance.now() })
  }

  async #foreigners(): Promise<readonly Stranger[]> {
    const { cluster } = this.#ground
    const [worker] = this.#living
    if (worker === undefined) return []
    const account = `stranger-${this.#scenario.seed}-${addresses}`
    await cluster.createServiceAccount(account)
    const pod = await cluster.createPod({ ip: nextAddress(), serviceAccount: account })
    this.#ownPods.push(pod)
    const other = await cluster.mint({ pod: worker.pod, audiences: [`not-${AUDIENCE}`] })
    const unlisted = await cluster.mint({ pod })
    const unbound = await cluster.mint({ serviceAccount: WORKER })
    return [
      { pretence: 'a token for another audience', token: other, address: worker.pod.ip },
      { pretence: "a stranger's token", token: unlisted, address: pod.ip },
      { pretence: 'a token without a pod', token: unbound, address: pod.ip },
      { pretence: 'no token', address: podAddress(STRANGER_ADDRESSES.first) },
    ]
  }

  #drawStranger(random: SeededRandom): Stranger | undefined {
    const living = this.#living[random.below(this.#living.length)]
    const dead = this.#deleted[random.below(this.#deleted.length)]
    const foreign = this.#foreign[random.below(this.#foreign.length)]
    const address = podAddress(STRANGER_ADDRESSES.first + random.below(STRANGER_ADDRESSES.count))
    const kinds: readonly (Stranger | undefined)[] = [
      living && {
        pretence: 'a forged signature',
        token: forge(living.token),
        address: living.pod.ip,
      },
      living && { pretence: "another pod's token", token: living.token, address },
      dead && deadOne(dead),
      foreign,
    ]
    return kinds[random.below(kinds.length)]
  }

  /** Each kind once more, now that everything works and nobody else asks: each has to be told no. */
  async #lastStrangers(): Promise<void> {
    const [living] = this.#living
    const all: Stranger[] = [...this.#foreign]
    if (living !== undefined) {
      const { token, pod } = living
      all.push({ pretence: 'a forged signature', token: forge(token), address: pod.ip })
      const address = podAddress(STRANGER_ADDRESSES.first)
      all.push({ pretence: "another pod's token", token, address })
    }
    const found = this.#deleted.map(
      (dead) => [deadOne(dead), this.#troubles.forgottenBy(dead.at)] as const,
    )
    const last = [...found, ...all.map((stranger) => [stranger, deniedBy()] as const)]
    await Promise.all(last.map(([stranger, until]) => this.#denied(stranger, until)))
  }

  async #denied(stranger: Stranger, until: number): Promise<void> {
    const problem = await comeUntilDenied(async () => {
      const trial = await tryIn(stranger)
      this.trials.push(trial)
      return {
        verdict: this.#judgeTrial(trial),
        told: `${stranger.pretence} was told "${trial.code}"`,
      }
    }, until)
    if (problem !== undefined) this.problems.push(problem)
  }

  #judgeStrangers(trials: readonly Trial[]): void {
    this.trials.push(...trials)
    for (const trial of trials) {
      const verdict = this.#judgeTrial(trial)
      if (typeof verdict === 'object') this.problems.push(verdict.problem)
    }
  }

  #judgeTrial({ stranger, outcome, code, startedAt }: Trial): Verdict {
    const { pretence, token } = stranger
    const dead = this.#deleted.find(({ worker }) => worker.token === token)
    if (outcome === 'in' && pretence === "a deleted pod's token" && dead !== undefined) {
      return this.#troubles.judgeLateEntry(startedAt, dead.at)
    }
    const circumstances = { isPodGone: dead !== undefined, hasWrongClock: this.#bends('clock') }
    return judgeAnswer({ pretence, outcome, code }, circumstances)
  }

  async #judgeRecovery(): Promise<void> {
    const healedAt = performance.now()
    try {
      await waitForProcess('everybody who may get in is in', BACK_WITHIN_MS, () =>
        this.#living.every(hasEchoed(healedAt)),
      )
    } catch (error) {
      const out = this.#living.filter((worker) => !hasEchoed(healedAt)(worker))
      const last = out.map(
        ({ pod, isOpen, refusals, ends }) =>
          `${pod.name} ${isOpen ? 'has a mute stream' : `was last told ${JSON.stringify(refusals.at(-1) ?? ends.at(-1) ?? 'nothing')}`}`,
      )
      throw new Error(`${(error as Error).message}: ${last.join(', ')}`, { cause: error })
    }
    this.backMs = performance.now() - healedAt
  }

  async #judgeRevocations(): Promise<void> {
    await Promise.all(
      this.#deleted.map(async ({ worker, at }) => {
        const isTroubled = this.#troubles.touch(at, at + REVOKED_WITHIN_MS)
        const left = Math.max(0, this.#troubles.forgottenBy(at) - performance.now())
        const isOver = () => !worker.isOpen
        await waitForProcess(`the end of ${worker.pod.name}`, left, isOver).catch(
          (error: unknown) => this.problems.push(`a stream outlives its pod: ${String(error)}`),
        )
        const end = worker.ends.findLast((each) => each.at >= at)
        if (end === undefined) return
        const took = end.at - at
        if (!isTroubled) this.revokedMs.push(took)
        if (!isTroubled && took > REVOKED_WITHIN_MS) {
          this.problems.push(`a stream outlived its pod by ${Math.round(took)} ms`)
        }
      }),
    )
  }

  #judgeWorkers(): void {
    for (const { pod, problems, ends, refusals } of this.everybody) {
      this.problems.push(...problems)
      const deletedAt = this.#deleted.find(({ worker }) => worker.pod.uid === pod.uid)?.at
      if (!this.#bends('cut')) {
        for (const { code } of ends.filter((end) => end.code === ABNORMAL)) {
          this.problems.push(`a stream of ${pod.name} ended without a code (${code})`)
        }
      }
      if (this.#bends('clock') || deletedAt !== undefined) continue
      for (const { status, code } of refusals.filter((each) => !ASK_AGAIN.has(each.status))) {
        this.problems.push(`${pod.name}, who may get in, was told ${status} ${code}`)
      }
    }
  }
}

const deadOne = ({ worker }: Deleted): Stranger => ({
  pretence: "a deleted pod's token",
  token: worker.token,
  address: worker.pod.ip,
})

/** Whether its stream has returned something that was sent after this moment. */
const hasEchoed =
  (since: number) =>
  (worker: ChaosWorker): boolean =>
    worker.isOpen && worker.echoes > 0 && worker.lastEchoSentAt >= since
