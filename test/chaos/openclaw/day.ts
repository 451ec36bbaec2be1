/** Plays one scenario between a real gateway and a real node, and says which promises it broke, seen from outside. */

import { setTimeout as sleep } from 'node:timers/promises'
import { waitForProcess } from '../../kit/wait.ts'
import type { ProductRig } from '../../openclaw/product-rig.ts'
import { PAUSING_CODES, type RealNode } from '../../openclaw/real-node.ts'
import { comeUntilDenied, deniedBy, judgeAnswer, type Verdict } from '../answers.ts'
import { playOut, type Played } from '../played.ts'
import { forge } from '../strangers.ts'
import { REVOKED_WITHIN_MS, Troubles } from '../troubles.ts'
import { ReturningNode } from './returning-node.ts'
import type { ProductKind, ProductScenario } from './schedule.ts'
import { tryProduct, type ProductStranger } from './strangers.ts'

type Fault = {
  /** Whether a deletion may be heard of late. */
  readonly bendsWatch: boolean
  readonly begin: (rig: ProductRig) => unknown
  readonly end: (rig: ProductRig) => unknown
}

/** Once the gateway is up: a node waits up to 30 s before it dials again, and is in again within 90 s on a busy machine. */
const BACK_WITHIN_MS = 120_000
const FIRST_IN_MS = 120_000
/** The operator's channel waits up to 30 s before it dials a gateway again that was away. */
const FORGOTTEN_WITHIN_MS = 90_000
const BETWEEN_STRANGERS_MS = 400
const LOG_LINES = 25

const FAULTS: Readonly<Record<ProductKind, Fault>> = {
  'kill the gateway': {
    bendsWatch: false,
    begin: (rig) => rig.gateway.stop('SIGKILL'),
    end: (rig) => rig.gateway.start(),
  },
  'freeze the gateway': {
    bendsWatch: false,
    begin: (rig) => rig.gateway.signal('SIGSTOP'),
    end: (rig) => rig.gateway.signal('SIGCONT'),
  },
  'kill the sidecar': {
    bendsWatch: true,
    begin: (rig) => rig.sidecar.stop('SIGKILL'),
    end: (rig) => rig.sidecar.start(),
  },
  'freeze the sidecar': {
    bendsWatch: true,
    begin: (rig) => rig.sidecar.signal('SIGSTOP'),
    end: (rig) => rig.sidecar.signal('SIGCONT'),
  },
  'stop the API server': {
    bendsWatch: true,
    begin: (rig) => rig.api.stop(),
    end: (rig) => rig.api.start(),
  },
}

export const playProductDay = async (
  scenario: ProductScenario,
  rig: ProductRig,
  real: RealNode,
): Promise<Played> => {
  const startedAt = performance.now()
  const day = new ProductDay(scenario, rig, real)
  await playOut(day)
  await day.leave()
  return {
    seed: scenario.seed,
    kinds: scenario.faults.map(({ kind }) => kind),
    problems: day.problems,
    backMs: day.backMs,
    revokedMs: day.revokedMs,
    echoes: day.answers,
    streams: day.streams,
    strangers: day.trials,
    ms: performance.now() - startedAt,
    log: rig.sidecar.said().split('\n').slice(-LOG_LINES),
  }
}

class ProductDay {
  readonly problems: string[] = []
  readonly revokedMs: number[] = []
  backMs = Number.NaN
  /** Commands that the real node has answered. */
  answers = 0
  trials = 0
  readonly #scenario: ProductScenario
  readonly #rig: ProductRig
  readonly #real: RealNode
  readonly #staying: ReturningNode
  readonly #leaving: ReturningNode
  readonly #exitsBefore: number
  /** What ends here is over for the watch as well. */
  readonly #troubles = new Troubles(0)
  readonly #ends: (() => Promise<void>)[] = []
  #deletedAt = Infinity
  #areStrangersOver = false

  constructor(scenario: ProductScenario, rig: ProductRig, real: RealNode) {
    this.#scenario = scenario
    this.#rig = rig
    this.#real = real
    this.#exitsBefore = real.exits.length
    this.#staying = new ReturningNode(rig.createPod(`staying-${scenario.seed}`))
    this.#leaving = new ReturningNode(rig.createPod(`leaving-${scenario.seed}`))
  }

  get streams(): number {
    return this.#staying.admitted + this.#leaving.admitted
  }

  async play(): Promise<void> {
    const { faults, deletionAtMs } = this.#scenario
    const nodes = [this.#staying, this.#leaving]
    for (const node of nodes) node.live()
    await waitForProcess('the first nodes', FIRST_IN_MS, () => nodes.every((node) => node.isOpen))
    const began = performance.now()
    const until = (atMs: number) => sleep(Math.max(0, began + atMs - performance.now()))
    const strangers = this.#tryStrangers()
    const deletion = until(deletionAtMs).then(() => this.#deletePod())
    const faulty = faults.map(async ({ kind, atMs, forMs }) => {
      await until(atMs)
      await this.#breakOnce(kind, forMs)
    })
    await Promise.all([...faulty, deletion])
    await this.#judgeRecovery()
    await this.#judgeRevocation()
    this.#areStrangersOver = true
    await strangers
    await Promise.all(this.#strangers().map((stranger) => this.#denied(stranger)))
    await this.#judgeRecords()
    this.#judgeReal()
  }

  async leave(): Promise<void> {
    this.#areStrangersOver = true
    for (const end of this.#ends.splice(0)) await end().catch(() => {})
    await Promise.all([this.#staying.leave(), this.#leaving.leave()])
    this.#rig.deletePod(this.#staying.pod)
  }

  async #breakOnce(kind: ProductKind, forMs: number): Promise<void> {
    const { begin, end, bendsWatch } = FAULTS[kind]
    const window = { from: performance.now(), until: Infinity }
    if (bendsWatch) this.#troubles.add(window)
    let isOver = false
    const endOnce = async () => {
      if (isOver) return
      isOver = true
      await end(this.#rig)
      window.until = performance.now()
    }
    this.#ends.push(endOnce)
    await begin(this.#rig)
    await sleep(forMs)
    await endOnce()
  }

  #deletePod(): void {
    this.#rig.deletePod(this.#leaving.pod)
    this.#deletedAt = performance.now()
  }

  #strangers(): readonly ProductStranger[] {
    const [staying, leaving] = [this.#staying, this.#leaving]
    const { url, address } = staying.pod
    const gone = { token: leaving.token, url: leaving.pod.url, address: leaving.pod.address }
    return [
      { pretence: 'a forged signature', token: forge(staying.token), url, address },
      { pretence: "another pod's token", token: staying.token, url, address: leaving.pod.address },
      ...(this.#deletedAt < Infinity
        ? [{ pretence: "a deleted pod's token", ...gone } as const]
        : []),
    ]
  }

  async #tryStrangers(): Promise<void> {
    while (!this.#areStrangersOver) {
      for (const stranger of this.#strangers()) {
        const { verdict } = await this.#tryOne(stranger)
        if (typeof verdict === 'object') this.problems.push(verdict.problem)
      }
      await sleep(BETWEEN_STRANGERS_MS)
    }
  }

  async #denied(stranger: ProductStranger): Promise<void> {
    const isDead = stranger.pretence === "a deleted pod's token"
    const until = isDead ? this.#troubles.forgottenBy(this.#deletedAt) : deniedBy()
    const problem = await comeUntilDenied(() => this.#tryOne(stranger), until)
    if (problem !== undefined) this.problems.push(problem)
  }

  async #tryOne(stranger: ProductStranger): Promise<{ verdict: Verdict; told: string }> {
    this.trials += 1
    const trial = await tryProduct(stranger)
    const told = `${stranger.pretence} was told "${trial.code}"`
    if (trial.outcome === 'in' && stranger.pretence === "a deleted pod's token") {
      return { verdict: this.#troubles.judgeLateEntry(trial.startedAt, this.#deletedAt), told }
    }
    return { verdict: judgeAnswer(trial, { isPodGone: false, hasWrongClock: false }), told }
  }

  /** A frozen gateway has lost its owner's connection too. */
  async #judgeRecovery(): Promise<void> {
    const healedAt = performance.now()
    await this.#rig.operator().close()
    await this.#rig.renewOperator()
    await this.#rig.usable(this.#real.name, BACK_WITHIN_MS)
    this.answers += 1
    const left = Math.max(0, healedAt + BACK_WITHIN_MS - performance.now())
    await waitForProcess('the other node is in again', left, () => this.#staying.isOpen)
    await this.#rig.usable(this.#staying.pod.name, BACK_WITHIN_MS)
    this.backMs = performance.now() - healedAt
  }

  async #judgeRevocation(): Promise<void> {
    const left = Math.max(0, this.#troubles.forgottenBy(this.#deletedAt) - performance.now())
    const isOver = () => !this.#leaving.isOpen
    await waitForProcess('the end of the stream', left, isOver).catch((error: unknown) =>
      this.problems.push(`a stream outlives its pod: ${String(error)}`),
    )
    const end = this.#leaving.ends.findLast(({ at }) => at >= this.#deletedAt)
    if (
      end === undefined ||
      this.#troubles.touch(this.#deletedAt, this.#deletedAt + REVOKED_WITHIN_MS)
    )
      return
    const took = end.at - this.#deletedAt
    this.revokedMs.push(took)
    if (took > REVOKED_WITHIN_MS) {
      this.problems.push(`a stream outlived its pod by ${Math.round(took)} ms`)
    }
  }

  /** The gateway has one record of each living node, and none of the pod that is gone. */
  async #judgeRecords(): Promise<void> {
    const recordsOf = async (name: string) => (await this.#rig.devicesNamed(name)).length
    await waitForProcess(
      'the record of the deleted pod is gone',
      FORGOTTEN_WITHIN_MS,
      async () => (await recordsOf(this.#leaving.pod.name)) === 0,
    )
    for (const name of [this.#real.name, this.#staying.pod.name]) {
      const records = await recordsOf(name)
      if (records !== 1) this.problems.push(`${name} has ${records} records at the gateway`)
    }
  }

  #judgeReal(): void {
    const { exits, name } = this.#real
    if (exits.length > this.#exitsBefore) this.problems.push(`${name} was made to exit`)
    const said = this.#real.said()
    const pausing = PAUSING_CODES.find((code) => said.includes(code))
    if (pausing !== undefined) this.problems.push(`${name} was told ${pausing}`)
  }
}
