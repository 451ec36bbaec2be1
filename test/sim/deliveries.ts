/** When the sidecar has heard of each change: the moment in which the last byte of the event arrived. */

import type { SentEvent } from '../kit/kube-watch.ts'
import type { Connection, SimNetwork } from './network.ts'

/** What of an object decides on streams. */
export type Told = {
  readonly uid: string
  readonly kind: string
  readonly isGone: boolean
  readonly isTerminating: boolean
  readonly addresses: readonly string[]
}

type Underway = { readonly connection: Connection; readonly end: number; readonly told: Told }

type WatchedObject = {
  readonly kind: string
  readonly metadata: { readonly uid: string; readonly deletionTimestamp?: string }
  readonly status?: { readonly podIPs?: readonly { readonly ip: string }[] }
}

export class Deliveries {
  readonly #network: SimNetwork
  readonly #onTold: (told: Told) => void
  #underway: Underway[] = []

  constructor(network: SimNetwork, onTold: (told: Told) => void) {
    this.#network = network
    this.#onTold = onTold
  }

  /** The API server has handed a line of a watch to its socket. */
  sent({ type, object, response }: SentEvent): void {
    if (type === 'BOOKMARK' || type === 'ERROR') return
    const connection = this.#network.findByServer(response.socket)
    if (connection === undefined) return
    const { kind, metadata, status } = object as unknown as WatchedObject
    const told = {
      uid: metadata.uid,
      kind,
      isGone: type === 'DELETED',
      isTerminating: metadata.deletionTimestamp !== undefined,
      addresses: (status?.podIPs ?? []).map(({ ip }) => ip),
    }
    this.#underway.push({ connection, end: connection.server.bytesWritten, told })
  }

  /** Tells of what has arrived by now. What a connection did not carry any more is never told. */
  check(): void {
    if (this.#underway.length === 0) return
    this.#underway = this.#underway.filter(({ connection, end, told }) => {
      if (connection.client.bytesRead >= end) this.#onTold(told)
      else if (!connection.client.destroyed) return true
      return false
    })
  }
}
