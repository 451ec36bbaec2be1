/** A worker with a pod: comes back whenever it is refused or cut off, and counts every byte that returns. */

import { setTimeout as sleep } from 'node:timers/promises'
import type { RawData, WebSocket } from 'ws'
import { SeededRandom } from '../kit/soak.ts'
import type { Pod } from '../cluster/cluster-rig.ts'
import { attempt, type Attempt } from './attempt.ts'

export type End = { readonly at: number; readonly code: number; readonly reason: string }

const BETWEEN_MS = 60
const BACK_OFF_MS = [100, 700] as const
const UNANSWERED_MAX = 32
/** A worker gives a stream up that has been silent for this long. */
const SILENT_MS = 12_000
const TEXT_MAX = 3000
const BIG_TEXT = 128 * 1024

export class ChaosWorker {
  readonly pod: Pod
  readonly token: string
  readonly ends: End[] = []
  readonly refusals: (Attempt & { readonly kind: 'refused' })[] = []
  /** Bytes that were lost, repeated or changed. */
  readonly problems: string[] = []
  admitted = 0
  echoes = 0
  lastEchoAt = 0
  /** What it did before it was sent is older than this. */
  lastEchoSentAt = 0
  streamSince: number | undefined
  readonly #port: number
  readonly #random: SeededRandom
  #isLiving = true
  #reads = true
  #isBig = false
  #socket: WebSocket | undefined
  #life: Promise<void> | undefined

  constructor(pod: Pod, token: string, port: number, seed: number) {
    this.pod = pod
    this.token = token
    this.#port = port
    this.#random = new SeededRandom(seed)
  }

  live(): void {
    this.#life = this.#comeBackAlways()
  }

  get isOpen(): boolean {
    return this.streamSince !== undefined
  }

  /** Sends much and reads nothing, until it is told to read again. */
  setReading(reads: boolean): void {
    this.#reads = reads
    this.#isBig = !reads
    if (reads) this.#socket?.resume()
    else this.#socket?.pause()
  }

  /** Closes its stream and comes back no more. */
  async leave(): Promise<void> {
    this.#isLiving = false
    this.#socket?.resume()
    this.#socket?.close(1000)
    await this.#life
  }

  async #comeBackAlways(): Promise<void> {
    while (this.#isLiving) {
      const outcome = await attempt(this.#port, { token: this.token, address: this.pod.ip })
      if (outcome.kind === 'refused') this.refusals.push(outcome)
      if (outcome.kind === 'in') await this.#stream(outcome.socket)
      const [min, max] = BACK_OFF_MS
      if (this.#isLiving) await sleep(min + this.#random.below(max - min))
    }
  }

  async #stream(socket: WebSocket): Promise<void> {
    this.admitted += 1
    this.#socket = socket
    this.streamSince = performance.now()
    const sent: { readonly text: string; readonly at: number }[] = []
    let lastHeardAt = performance.now()
    let givenUp = false
    socket.on('message', (data: RawData) => {
      const text = (data as Buffer).toString()
      const expected = sent.shift()
      lastHeardAt = performance.now()
      if (expected?.text !== text) {
        const shown = `${text.slice(0, 30)} in place of ${expected?.text.slice(0, 30) ?? 'nothing'}`
        this.problems.push(`${this.pod.name} got ${shown}`)
        socket.terminate()
        return
      }
      this.echoes += 1
      this.lastEchoAt = lastHeardAt
      this.lastEchoSentAt = expected.at
    })
    const { promise: over, resolve } = Promise.withResolvers<void>()
    socket.once('close', (code, reason) => {
      const at = performance.now()
      if (!givenUp) this.ends.push({ at, code, reason: reason.toString() })
      this.streamSince = undefined
      this.#socket = undefined
      resolve()
    })
    if (!this.#isLiving) socket.close(1000)
    if (!this.#reads) socket.pause()
    let number = 0
    while (socket.readyState === socket.OPEN) {
      if (sent.length < UNANSWERED_MAX) {
        number += 1
        const length = this.#isBig ? BIG_TEXT : this.#random.below(TEXT_MAX)
        const text = `${this.pod.name}/${this.admitted}/${number}/${'abcdefghij'.repeat(length / 10)}`
        sent.push({ text, at: performance.now() })
        socket.send(text)
      }
      if (this.#reads && sent.length > 0 && performance.now() - lastHeardAt > SILENT_MS) {
        givenUp = true
        socket.terminate()
      }
      if (!this.#reads) lastHeardAt = performance.now()
      await Promise.race([over, sleep(BETWEEN_MS)])
    }
    const timer = setTimeout(() => socket.terminate(), SILENT_MS)
    await over
    clearTimeout(timer)
  }
}
