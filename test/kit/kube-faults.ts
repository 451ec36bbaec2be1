/** The ways an API server misbehaves, on demand, and gates that hold its answers in flight. */

import type { ServerResponse } from 'node:http'
import type { Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { json } from './kube-status.ts'
import type { Answer } from './kube-status.ts'

export const ROUTES = [
  'tokenReviews',
  'accessReviews',
  'subjectAccessReviews',
  'discovery',
  'jwks',
  'lists',
  'watches',
  'podGets',
  'serviceAccountGets',
  'serviceAccountLookups',
  'version',
  'readyz',
  'unknown',
] as const

export type Route = (typeof ROUTES)[number]

export type ApiFault =
  /** Answers with this instead. Without a body it is a `Status`-less, empty one. */
  | {
      readonly kind: 'status'
      readonly status: number
      readonly body?: unknown
      readonly headers?: Readonly<Record<string, string>>
    }
  /** Takes the request and never answers. */
  | { readonly kind: 'hang' }
  /** The true list, or never an answer where it has more objects than this. */
  | { readonly kind: 'hangAbove'; readonly objects: number }
  /** The true answer, this much later by the API server's clock. */
  | { readonly kind: 'delay'; readonly ms: number }
  /** The first half of the true answer, then nothing, or a cut connection. */
  | { readonly kind: 'halfBody'; readonly ending: 'stall' | 'cut' }
  /** Cuts the connection without an answer. */
  | { readonly kind: 'reset' }
  /** A 200 or 201 whose body is not JSON. */
  | { readonly kind: 'garbage' }
  /** TokenReview: the token is good, but for these audiences (none: audience-unaware reviewer). */
  | { readonly kind: 'wrongAudience'; readonly audiences?: readonly string[] }
  /** TokenReview: any change to the true answer, such as another identity. */
  | { readonly kind: 'rewriteReview'; readonly rewrite: (review: ReviewBody) => unknown }
  /** Any change to the true answer's JSON, whatever the route. */
  | { readonly kind: 'rewrite'; readonly rewrite: (body: Record<string, unknown>) => unknown }

/** A TokenReview to change: mutable, and loose where a fault needs another type. */
export type ReviewBody = {
  kind: unknown
  apiVersion: unknown
  spec: { token: unknown; audiences?: unknown }
  status: {
    authenticated?: unknown
    error?: unknown
    audiences?: unknown
    user: { username?: unknown; uid?: unknown; groups?: unknown; extra: Record<string, unknown> }
  }
}

/** Which requests of a route: the next few, or only those about one namespace. */
export type FaultLimit = { readonly times?: number; readonly namespace?: string }

type Armed = { readonly fault: ApiFault; left: number }

export class Faults {
  readonly #armed = new Map<string, Armed>()

  /** Arms a fault for the next `times` requests of a route, or of all with `*`. */
  set(route: Route | '*', fault: ApiFault, { times = Infinity, namespace }: FaultLimit = {}): void {
    this.#armed.set(keyOf(route, namespace), { fault, left: times })
  }

  clear(route?: Route | '*', namespace?: string): void {
    if (route === undefined) this.#armed.clear()
    else this.#armed.delete(keyOf(route, namespace))
  }

  take(route: Route, namespace?: string): ApiFault | undefined {
    for (const key of [keyOf(route, namespace), route, '*']) {
      const armed = this.#armed.get(key)
      if (armed === undefined) continue
      armed.left -= 1
      if (armed.left <= 0) this.#armed.delete(key)
      return armed.fault
    }
    return undefined
  }
}

const keyOf = (route: Route | '*', namespace: string | undefined): string =>
  namespace === undefined ? route : `${route} of ${namespace}`

/** Holds answers back between their decision and their sending, so that a test can act in between. */
export class Gate {
  #isPaused = false
  #held: (() => void)[] = []
  #arrived = 0
  #awaited = 0
  #waiting: { readonly count: number; readonly resolve: () => void }[] = []

  get held(): number {
    return this.#held.length
  }

  pause(): void {
    this.#isPaused = true
  }

  /** Lets all held answers go, and later ones pass. */
  release(): void {
    this.#isPaused = false
    for (const go of this.#held.splice(0)) go()
  }

  /** Resolves with the next answer held that no earlier call has awaited. */
  async arrived(): Promise<void> {
    this.#awaited += 1
    const count = this.#awaited
    if (this.#arrived >= count) return
    await new Promise<void>((resolve) => this.#waiting.push({ count, resolve }))
  }

  async pass(): Promise<void> {
    if (!this.#isPaused) return
    const gone = new Promise<void>((resolve) => this.#held.push(resolve))
    this.#arrived += 1
    this.#waiting = this.#waiting.filter((waiter) => {
      if (waiter.count > this.#arrived) return true
      waiter.resolve()
      return false
    })
    await gone
  }
}

/** Sends an answer, or what the fault makes of it. */
export const deliver = async (
  response: ServerResponse,
  answer: Answer,
  fault: ApiFault | undefined,
  clock: Clock,
): Promise<void> => {
  switch (fault?.kind) {
    case undefined:
      send(response, answer)
      return
    case 'status':
      send(response, substitute(fault.status, fault.body, fault.headers))
      return
    case 'hang':
      return
    case 'hangAbove':
      if (countItems(answer) <= fault.objects) send(response, answer)
      return
    case 'delay':
      await new Promise<void>((resolve) => clock.after(fault.ms, resolve))
      send(response, answer)
      return
    case 'halfBody':
      sendHalf(response, answer, fault.ending)
      return
    case 'reset':
      response.destroy()
      return
    case 'garbage':
      send(response, { ...answer, body: '{"kind": "Tok' })
      return
    case 'wrongAudience':
      send(response, withAudiences(answer, fault.audiences))
      return
    case 'rewriteReview':
      send(response, withBody(answer, fault.rewrite(JSON.parse(answer.body) as ReviewBody)))
      return
    case 'rewrite':
      send(response, withBody(answer, fault.rewrite(JSON.parse(answer.body) as JsonObject)))
  }
}

type JsonObject = Record<string, unknown>

const countItems = ({ body }: Answer): number => {
  const { items } = JSON.parse(body) as JsonObject
  return Array.isArray(items) ? items.length : 0
}

const withBody = (answer: Answer, body: unknown): Answer => ({
  ...answer,
  body: JSON.stringify(body),
})

const send = (response: ServerResponse, answer: Answer): void => {
  if (response.destroyed) return
  response.writeHead(answer.status, {
    ...answer.headers,
    'content-length': Buffer.byteLength(answer.body),
  })
  response.end(answer.body)
}

const sendHalf = (response: ServerResponse, answer: Answer, ending: 'stall' | 'cut'): void => {
  const body = Buffer.from(answer.body)
  response.writeHead(answer.status, { ...answer.headers, 'content-length': body.length })
  response.write(body.subarray(0, body.length >> 1), () => {
    if (ending === 'cut') response.destroy()
  })
}

const substitute = (
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): Answer =>
  typeof body === 'string'
    ? { status, headers: { 'content-type': 'text/plain', ...headers }, body }
    : body === undefined
      ? { status, headers, body: '' }
      : json(status, body, headers)

const withAudiences = (answer: Answer, audiences: readonly string[] | undefined): Answer => {
  const review = JSON.parse(answer.body) as { status: Record<string, unknown> }
  const { audiences: _, ...status } = review.status
  const changed = audiences === undefined ? status : { ...status, audiences }
  return withBody(answer, { ...review, status: changed })
}
