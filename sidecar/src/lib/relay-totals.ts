/** What streams have carried: the totals of one stream, and of all since the start. */

/** Up is from the worker to the gateway. The sidecar's own frames are not counted. */
export type RelayTotals = {
  readonly bytesUp: number
  readonly bytesDown: number
  readonly messagesUp: number
  readonly messagesDown: number
}

/** Keeps the sum of the ended streams, since nothing counts those any more. */
export class RelaySum {
  #ended: RelayTotals = { bytesUp: 0, bytesDown: 0, messagesUp: 0, messagesDown: 0 }

  /** A stream ended. */
  add(totals: RelayTotals): void {
    this.#ended = sumOf([this.#ended, totals])
  }

  /** The sum of the ended streams and these. */
  with(live: Iterable<RelayTotals>): RelayTotals {
    return sumOf([this.#ended, ...live])
  }
}

export const sumOf = (all: Iterable<RelayTotals>): RelayTotals => {
  const sum = { bytesUp: 0, bytesDown: 0, messagesUp: 0, messagesDown: 0 }
  for (const { bytesUp, bytesDown, messagesUp, messagesDown } of all) {
    sum.bytesUp += bytesUp
    sum.bytesDown += bytesDown
    sum.messagesUp += messagesUp
    sum.messagesDown += messagesDown
  }
  return sum
}
