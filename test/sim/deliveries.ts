/** When the sidecar has heard of each change: the moment in which the last byte of the event arrived. */

import type { SentList } from '../kit/kube-api.ts'
import type { SentEvent } from '../kit/kube-watch.ts'
import type { Connection, SimNetwork } from './network.ts'

/** What of an object decides on streams. */
export type Told = {
  readonly uid: string
  readonly kind: string
  readonly name: string
  readonly isGone: boolean
  readonly isTerminating: boolean
  readonly addresses: readonly string[]
}

/** A whole list of the pods of an account, or of that account itself. */
export type ToldList = {
  readonly kind: string
  readonly account: string
  readonly uids: ReadonlySet<string>
  /** When the API server made it, on the monotonic clock. */
  readonly decidedMs: number
}

type Underway = {
  readonly connection: Connection
  /** The last byte, among all that the connection has carried. */
  readonly end: number
  readonly arrive: () => void
}

type DeliveriesOptions = {
  readonly network: SimNetwork
  readonly onTold: (told: Told) => void
  readonly onToldList: (told: ToldList) => void
}

type Metadata = {
  readonly uid: string
  readonly name: string
  readonly deletionTimestamp?: string
}

type WatchedObject = {
  readonly kind: string
  readonly metadata: Metadata
  readonly status?: { readonly podIPs?: readonly { readonly ip: string }[] }
}

export class Deliveries {
  readonly #options: DeliveriesOptions
  #underway: Underway[] = []

  constructor(options: DeliveriesOptions) {
    this.#options = options
  }

  /** The API server has handed a line of a watch to its socket. */
  sent({ type, object, response }: SentEvent): void {
    if (type === 'BOOKMARK' || type === 'ERROR') return
    const { kind, metadata, status } = object as unknown as WatchedObject
    const told = {
      uid: metadata.uid,
      kind,
      name: metadata.name,
      isGone: type === 'DELETED',
      isTerminating: metadata.deletionTimestamp !== undefined,
      addresses: (status?.podIPs ?? []).map(({ ip }) => ip),
    }
    this.#await(response.socket, () => this.#options.onTold(told))
  }

  /** The API server has handed a list to its socket. A page is not the whole of it. */
  listed({ url, body, decidedMs, socket }: SentList): void {
    const [, field, account] = /^(.*)=(.*)$/.exec(url.searchParams.get('fieldSelector') ?? '') ?? []
    if (field === undefined || account === undefined || url.searchParams.has('continue')) return
    const { items, metadata } = JSON.parse(body) as {
      readonly items: readonly { readonly metadata: Metadata }[]
      readonly metadata: { readonly continue?: string }
    }
    if (metadata.continue !== undefined) return
    const kind = field === 'metadata.name' ? 'ServiceAccount' : 'Pod'
    const uids = new Set(items.map((item) => item.metadata.uid))
    this.#await(socket, () => this.#options.onToldList({ kind, account, uids, decidedMs }))
  }

  #await(socket: unknown, arrive: () => void): void {
    const connection = this.#options.network.findByServer(socket)
    if (connection === undefined) return
    this.#underway.push({ connection, end: connection.server.bytesWritten, arrive })
  }

  /** Tells of what has arrived by now. What a connection did not carry any more is never told. */
  check(): void {
    if (this.#underway.length === 0) return
    this.#underway = this.#underway.filter(({ connection, end, arrive }) => {
      // A reset takes along what nobody has read.
      if (connection.client.destroyed) return false
      if (connection.client.bytesRead < end) return true
      arrive()
      return false
    })
  }
}
