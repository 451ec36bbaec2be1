/** Lists and watches over the store, with the ways in which a watch goes wrong. */

import type { ServerResponse } from 'node:http'
import type { Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { badRequest, failure, json, statusObject, tooOld } from './kube-status.ts'
import type { Answer } from './kube-status.ts'
import type { KubeEvent, KubeObject, KubeStore, Resource } from './kube-store.ts'

export type Selection = {
  readonly resource: Resource
  readonly namespace: string
  readonly matches: (object: KubeObject) => boolean
}

type Watch = {
  readonly selection: Selection
  readonly response: ServerResponse
  readonly bookmarks: boolean
  isMuted: boolean
  /** When the last line is due that lags. */
  dueAt: number
}

/** A line of a watch that was handed to its socket. */
export type SentEvent = {
  readonly type: string
  readonly object: Record<string, unknown>
  readonly response: ServerResponse
}

/** A client that stops reading is cut off, as the real one does. */
const UNREAD_BYTES_MAX = 16 * 1024 * 1024
const CONTINUE_EXPIRED =
  'The provided continue parameter is too old to display a consistent list result.'

const KINDS = { pods: 'Pod', serviceaccounts: 'ServiceAccount' } as const
/** What a bookmark carries besides its version: the empty object of the kind. */
const EMPTY = { pods: { spec: { containers: null }, status: {} }, serviceaccounts: {} } as const

export const withKind = (resource: Resource, object: KubeObject): Record<string, unknown> => ({
  kind: KINDS[resource],
  apiVersion: 'v1',
  ...object,
})

const FIELDS: Readonly<Record<string, (object: KubeObject) => string | undefined>> = {
  'metadata.name': (object) => object.metadata.name,
  'metadata.namespace': (object) => object.metadata.namespace,
  'spec.serviceAccountName': (object) =>
    'spec' in object ? object.spec.serviceAccountName : undefined,
  'spec.nodeName': (object) => ('spec' in object ? (object.spec.nodeName ?? '') : undefined),
  'status.phase': (object) => ('status' in object ? object.status.phase : undefined),
}

/** Reads the selectors of a query, or says what the API server would answer to it. */
export const selectionOf = (
  resource: Resource,
  namespace: string,
  query: URLSearchParams,
): Selection | Answer => {
  if (query.get('labelSelector')) return badRequest('this server knows no labelSelector')
  const tests: ((object: KubeObject) => boolean)[] = []
  for (const term of (query.get('fieldSelector') ?? '').split(',').filter(Boolean)) {
    const [, label = '', operator, value] = /^([^=!]+)(==|=|!=)(.*)$/.exec(term) ?? []
    const field = FIELDS[label]
    const isPodField = /^(?:spec|status)\./.test(label)
    if (field === undefined || (resource !== 'pods' && isPodField)) {
      return badRequest(`field label not supported: ${label || term}`)
    }
    tests.push((object) => (field(object) === value) === (operator !== '!='))
  }
  return { resource, namespace, matches: (object) => tests.every((test) => test(object)) }
}

export const listAnswer = (
  store: KubeStore,
  selection: Selection,
  query: URLSearchParams,
): Answer => {
  const { resource, namespace, matches } = selection
  const limit = Number(query.get('limit') ?? 0)
  const token = query.get('continue')
  const [version, after] = token ? readContinue(token) : [store.version, '']
  if (version < store.oldest) {
    return failure({ code: 410, message: CONTINUE_EXPIRED, reason: 'Expired' })
  }
  const rest = store.list(resource, namespace).filter((o) => matches(o) && o.metadata.name > after)
  const items = limit > 0 ? rest.slice(0, limit) : rest
  const last = items.at(-1)
  const more =
    last === undefined || items.length === rest.length
      ? {}
      : {
          continue: writeContinue(version, last.metadata.name),
          remainingItemCount: rest.length - items.length,
        }
  return json(200, {
    kind: `${KINDS[resource]}List`,
    apiVersion: 'v1',
    metadata: { resourceVersion: String(version), ...more },
    items,
  })
}

const writeContinue = (version: number, name: string): string =>
  Buffer.from(`${version}:${name}`).toString('base64url')

const readContinue = (token: string): readonly [number, string] => {
  const [version, name] = Buffer.from(token, 'base64url').toString().split(':')
  return [Number(version), name ?? '']
}

export class Watches {
  readonly #store: KubeStore
  readonly #clock: Clock
  readonly #open = new Set<Watch>()
  readonly #waiting = new Set<{ readonly atLeast: number; readonly resolve: () => void }>()
  readonly #onSent: ((event: SentEvent) => void) | undefined
  #lagMs = 0
  #isLosing = false

  constructor(store: KubeStore, clock: Clock, onSent?: (event: SentEvent) => void) {
    this.#store = store
    this.#clock = clock
    this.#onSent = onSent
    store.subscribe((event) => {
      if (this.#isLosing) return
      for (const watch of this.#open) this.#relay(watch, event)
    })
  }

  get open(): number {
    return this.#open.size
  }

  /** Resolves when at least this many watches are open at once. */
  async opened(atLeast: number): Promise<void> {
    if (this.#open.size >= atLeast) return
    await new Promise<void>((resolve) => this.#waiting.add({ atLeast, resolve }))
  }

  serve(selection: Selection, query: URLSearchParams, response: ServerResponse): void {
    const asked = query.get('resourceVersion') ?? ''
    const watch: Watch = {
      selection,
      response,
      bookmarks: query.get('allowWatchBookmarks') === 'true',
      isMuted: false,
      dueAt: 0,
    }
    response.writeHead(200, {
      'cache-control': 'no-cache, private',
      'content-type': 'application/json',
    })
    response.flushHeaders()
    if (!this.#catchUp(watch, asked)) return
    const timeoutS = Number(query.get('timeoutSeconds') ?? 0)
    const cancel =
      timeoutS > 0 ? this.#clock.after(timeoutS * 1000, () => this.#finish(watch)) : () => {}
    this.#open.add(watch)
    response.once('close', () => {
      cancel()
      this.#open.delete(watch)
    })
    for (const waiter of this.#waiting) {
      if (this.#open.size < waiter.atLeast) continue
      this.#waiting.delete(waiter)
      waiter.resolve()
    }
  }

  /** Cuts the connections of all open watches, as a dying load balancer would. */
  drop(): void {
    for (const watch of this.#open) watch.response.destroy()
  }

  /** Ends all open watches cleanly, as at their `timeoutSeconds`. */
  finish(): void {
    for (const watch of this.#open) this.#finish(watch)
  }

  /** Open watches, or those of one resource, stay connected but get no more bytes; later ones are served again. */
  blackhole(resource?: string): void {
    for (const watch of this.#open) {
      if (resource === undefined || watch.selection.resource === resource) watch.isMuted = true
    }
  }

  /** Lines come this much later from now on, in their order. */
  lag(ms: number): void {
    this.#lagMs = ms
  }

  /** Open watches lose the lines of what happens in this call, and go on. */
  withoutLines(happen: () => void): void {
    this.#isLosing = true
    happen()
    this.#isLosing = false
  }

  /** Forgets all history: open watches hear 410, and so will a watch from an older version. */
  expire(): void {
    const before = this.#store.version
    this.#store.compact()
    for (const watch of this.#open) this.#expire(watch, before)
  }

  sendBookmark(): void {
    for (const watch of this.#open) this.#bookmark(watch)
  }

  /** Brings a new watch up to date; false if that was impossible and it has been ended. */
  #catchUp(watch: Watch, asked: string): boolean {
    const { resource, namespace, matches } = watch.selection
    if (asked === '' || asked === '0') {
      for (const object of this.#store.list(resource, namespace).filter(matches)) {
        this.#write(watch, 'ADDED', withKind(resource, object))
      }
      this.#bookmark(watch, { 'k8s.io/initial-events-end': 'true' })
      return true
    }
    const events = this.#store.since(Number(asked))
    if (events === undefined) {
      this.#expire(watch, Number(asked))
      return false
    }
    for (const event of events) this.#relay(watch, event)
    return true
  }

  /** What a change means to this watch: an object can enter or leave its selection. */
  #relay(watch: Watch, event: KubeEvent): void {
    const { resource, namespace, matches } = watch.selection
    if (event.resource !== resource || event.object.metadata.namespace !== namespace) return
    const was = event.previous !== undefined && matches(event.previous)
    const is = event.type !== 'DELETED' && matches(event.object)
    if (!was && !is) return
    const type = is ? (was ? 'MODIFIED' : 'ADDED') : 'DELETED'
    this.#write(watch, type, withKind(resource, event.object))
  }

  #bookmark(watch: Watch, annotations?: Readonly<Record<string, string>>): void {
    if (!watch.bookmarks) return
    const { resource } = watch.selection
    this.#write(watch, 'BOOKMARK', {
      kind: KINDS[resource],
      apiVersion: 'v1',
      metadata: {
        resourceVersion: String(this.#store.version),
        ...(annotations === undefined ? {} : { annotations }),
      },
      ...EMPTY[resource],
    })
  }

  #expire(watch: Watch, asked: number): void {
    this.#write(watch, 'ERROR', statusObject(tooOld(asked, this.#store.oldest)))
    this.#end(watch)
  }

  #finish(watch: Watch): void {
    this.#bookmark(watch)
    this.#end(watch)
  }

  #end(watch: Watch): void {
    this.#inTurn(watch, () => {
      if (!watch.isMuted) watch.response.end()
    })
  }

  #write(watch: Watch, type: string, object: Record<string, unknown>): void {
    this.#inTurn(watch, () => {
      const { isMuted, response } = watch
      if (isMuted || response.writableEnded) return
      // On a connection that is gone, a line is not sent.
      response.write(`${JSON.stringify({ type, object })}\n`, (error) => {
        if (!error) this.#onSent?.({ type, object, response })
      })
      if (response.writableLength > UNREAD_BYTES_MAX) response.destroy()
    })
  }

  #inTurn(watch: Watch, run: () => void): void {
    const now = this.#clock.monotonic()
    const dueAt = Math.max(watch.dueAt, now + this.#lagMs)
    if (dueAt <= now) return run()
    watch.dueAt = dueAt
    this.#clock.after(dueAt - now, run)
  }
}
