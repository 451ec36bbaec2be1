/** What streams have carried: totals of one, and of all since the start. */

/** Up is from the worker to the gateway. Frames that are our own are not counted. */
export type RelayTotals = {
  readonly bytesUp: number
  readonly bytesDown: number
  readonly messagesUp: number
  readonly messagesDown: number
}

/** Keeps the sum of the streams that ended, since nobody counts those any more. */
export class RelaySum {
  #ended: RelayTotals = { bytesUp: 0, bytesDown: 0, messagesUp: 0, messagesDown: 0 }

  /** A stream ended. */
  add(totals: RelayTotals): void {
    this.#ended = sumOf([this.#ended, totals])
  }

  /** The ended streams and these. */
  with(live: Iterable<RelayTotals>): RelayTotals {
    return sumOf([this.#ended, ...live])
  }
}

const sumOf = (all: Iterable<RelayTotals>): RelayTotals => {
  const sum = { bytesUp: 0, bytesDown: 0, messagesUp: 0, messagesDown: 0 }
  for (const { bytesUp, bytesDown, messagesUp, messagesDown } of all) {
    sum.bytesUp += bytesUp
    sum.bytesDown += bytesDown
    sum.messagesUp += messagesUp
    sum.messagesDown += messagesDown
  }
  return sum
}
