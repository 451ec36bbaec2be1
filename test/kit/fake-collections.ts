/** Collections of the Kubernetes API without a network: a test gives each answer and each event. */

import type { KubeAnswer, KubeRequest } from '@openclaw-k8s/auth-sidecar/kube/client.ts'
import type { OpenWatch, WatchEvent } from '@openclaw-k8s/auth-sidecar/kube/watch-stream.ts'

const EMPTY_LIST = { items: [], metadata: { resourceVersion: '10' } }

/** One open watch. */
export class FakeWatch {
  readonly path: string
  readonly signal: AbortSignal
  readonly #events: WatchEvent[] = []
  #end: { readonly error?: unknown } | undefined
  #wake: () => void = () => {}

  constructor(path: string, signal: AbortSignal) {
    this.path = path
    this.signal = signal
    signal.addEventListener('abort', () => this.fail(signal.reason))
  }

  push(...events: readonly WatchEvent[]): void {
    this.#events.push(...events)
    this.#wake()
  }

  /** As the API server ends it cleanly. */
  end(): void {
    this.#end ??= {}
    this.#wake()
  }

  fail(error: unknown): void {
    this.#end ??= { error }
    this.#wake()
  }

  async *read(): AsyncGenerator<WatchEvent> {
    for (;;) {
      const event = this.#events.shift()
      if (event !== undefined) yield event
      else if (this.#end === undefined) {
        await new Promise<void>((resolve) => (this.#wake = resolve))
      } else if ('error' in this.#end) throw this.#end.error
      else return
    }
  }
}

/** Lists are empty at version 10 unless a test says otherwise; watches stay open. */
export class FakeCollections {
  /** The paths of all lists asked for. */
  readonly asked: string[] = []
  /** All watches opened so far. */
  readonly opened: FakeWatch[] = []
  readonly #answers: unknown[] = []
  #held: Promise<unknown> | undefined
  #refusal: { readonly error: unknown; readonly onAsked: () => void } | undefined

  readonly lists = {
    request: async ({ path }: KubeRequest): Promise<KubeAnswer> => {
      this.asked.push(path)
      const body = this.#held ?? this.#answers.shift() ?? this.listOf(path)
      this.#held = undefined
      return { status: 200, body: await body }
    },
  }

  readonly watches = {
    open: ({ path, signal, onOpen }: OpenWatch): AsyncGenerator<WatchEvent> => {
      if (this.#refusal !== undefined) {
        this.#refusal.onAsked()
        const refused = new FakeWatch(path, signal)
        refused.fail(this.#refusal.error)
        return refused.read()
      }
      const watch = new FakeWatch(path, signal)
      this.opened.push(watch)
      onOpen()
      return watch.read()
    },
  }

  /** The answer of a list that no test has set. */
  listOf: (path: string) => unknown = () => EMPTY_LIST

  /** The bodies of the next lists, in order. */
  answer(...bodies: readonly unknown[]): void {
    this.#answers.push(...bodies)
  }

  /** Holds the next list until the test resolves it. */
  hold(): PromiseWithResolvers<unknown> {
    const held = Promise.withResolvers<unknown>()
    this.#held = held.promise
    return held
  }

  /** From now on every watch fails with this; `undefined` lets them open again. */
  refuseWatches(error: unknown, onAsked: () => void = () => {}): void {
    this.#refusal = error === undefined ? undefined : { error, onAsked }
  }
}
