/** The workers of a storm, in one separate process: thousands of sockets, with a start command and a report. */

import { readFileSync } from 'node:fs'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import type { StormWorker } from './api.ts'
import { StormNode, type WorkerTarget } from './worker.ts'

type LoadRequest = {
  readonly workersFile: string
  readonly target: WorkerTarget
  /** How many streams stay open; workers beyond that leave at once. */
  readonly hold: number
}

export type LoadCommand =
  /** From now on every worker has to get in again: those who are out start after `afterMs`. */
  | { readonly kind: 'begin'; readonly afterMs: number }
  /** Waits until all are through, at most this long. */
  | { readonly kind: 'finish'; readonly timeoutMs: number }
  /** Lets every stream echo once a second until `settle`. */
  | { readonly kind: 'echo' }
  /** Waits for the echoes that are still due, and reports how long they all took. */
  | { readonly kind: 'settle' }

type Tally = Readonly<Record<string, number>>

export type Through = {
  readonly all: number
  /** Milliseconds from the beginning to each worker's first success, in order. */
  readonly throughMs: readonly number[]
  /** Attempts that came to nothing, by status or error. */
  readonly turnedAway: Tally
  /** Streams that ended, by close code. */
  readonly lost: Tally
}
export type LoadAnswer =
  | { readonly kind: 'begun' }
  | ({ readonly kind: 'finished' } & Through)
  | {
      readonly kind: 'echoed'
      readonly roundTripsMs: readonly number[]
      readonly unanswered: number
    }

const ECHO_EVERY_MS = 1000
/** The streams send in this many groups, one after another, so that they do not wait for each other. */
const ECHO_GROUPS = 200
const SETTLE_MS = 2000
const POLL_MS = 20
const STARTED_A_TURN = 8

const load = ({ workersFile, target, hold }: LoadRequest) => {
  const listed = JSON.parse(readFileSync(workersFile, 'utf8')) as readonly StormWorker[]
  let beganAt = 0
  let live = 0
  let waiting = new Set<StormNode>()
  let throughMs: number[] = []
  let roundTripsMs: number[] = []
  let turnedAway: Record<string, number> = {}
  let lost: Record<string, number> = {}
  const nodes = listed.map((worker) => {
    const node: StormNode = new StormNode(worker, target, {
      onThrough() {
        if (waiting.delete(node)) throughMs.push(performance.now() - beganAt)
        if (live >= hold) return false
        live += 1
        return true
      },
      onTurnedAway(why) {
        turnedAway[why] = (turnedAway[why] ?? 0) + 1
      },
      onLost(code) {
        live -= 1
        lost[code] = (lost[code] ?? 0) + 1
      },
      onEcho: (ms) => void roundTripsMs.push(ms),
    })
    return node
  })
  const begin = async (afterMs: number): Promise<void> => {
    beganAt = performance.now()
    waiting = new Set(nodes)
    throughMs = []
    turnedAway = {}
    lost = {}
    for (const [n, node] of nodes.entries()) {
      node.start(afterMs)
      // One process stands for many machines: connected workers must get their turn to send.
      if (n % STARTED_A_TURN === 0) await turn()
    }
  }
  const finish = async (timeoutMs: number): Promise<LoadAnswer> => {
    while (waiting.size > 0 && performance.now() - beganAt < timeoutMs) await sleep(POLL_MS)
    return { kind: 'finished', all: nodes.length, throughMs, turnedAway, lost }
  }
  let asked = 0
  let ticker: NodeJS.Timeout | undefined
  const echo = (): void => {
    const speaking = nodes.filter((node) => node.isIn)
    roundTripsMs = []
    asked = 0
    let group = 0
    ticker = setInterval(() => {
      for (let n = group; n < speaking.length; n += ECHO_GROUPS) {
        speaking[n]?.ask()
        asked += 1
      }
      group = (group + 1) % ECHO_GROUPS
    }, ECHO_EVERY_MS / ECHO_GROUPS)
  }
  const settle = async (): Promise<LoadAnswer> => {
    clearInterval(ticker)
    await sleep(SETTLE_MS)
    return { kind: 'echoed', roundTripsMs, unanswered: asked - roundTripsMs.length }
  }
  const run = async (command: LoadCommand): Promise<LoadAnswer> => {
    switch (command.kind) {
      case 'begin':
        await begin(command.afterMs)
        return { kind: 'begun' }
      case 'finish':
        return finish(command.timeoutMs)
      case 'echo':
        echo()
        return { kind: 'begun' }
      case 'settle':
        return settle()
    }
  }
  process.on('message', (command: LoadCommand) => {
    void run(command).then((answer) => process.send?.(answer))
  })
  process.on('disconnect', () => process.exit())
  process.send?.({ kind: 'begun' } satisfies LoadAnswer)
}

if (import.meta.main) load(JSON.parse(process.argv[2] ?? '') as LoadRequest)
