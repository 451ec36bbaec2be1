/** Floods a worker port from one address, at a bounded rate, for as long as its parent says. */

import { connect } from 'node:net'
import { createInterface } from 'node:readline'

/** What a line of the standard input asks for; an empty line stops the flood. */
export type FloodOrder = {
  readonly port: number
  readonly localAddress: string
  readonly ratePerSecond: number
  /** What each connection sends; it leaves at the first byte of an answer. */
  readonly request: string
}

/** Fewer than `limits.pendingPerAddress`: what is measured is not that limit. */
const AT_ONCE_MAX = 24
const TICK_MS = 5

let order: FloodOrder | undefined
let due = 0
let open = 0
let sent = 0

const attempt = ({ port, localAddress, request }: FloodOrder): void => {
  open += 1
  sent += 1
  const socket = connect({ host: '127.0.0.1', port, localAddress })
  socket.setTimeout(5000, () => socket.destroy())
  socket.on('error', () => {})
  socket.once('data', () => socket.destroy())
  socket.once('close', () => (open -= 1))
  socket.write(request)
}

setInterval(() => {
  if (order === undefined) return
  // What could not be sent in its turn is not sent later.
  due = Math.min(due + (order.ratePerSecond * TICK_MS) / 1000, AT_ONCE_MAX)
  const count = Math.min(Math.floor(due), AT_ONCE_MAX - open)
  due -= count
  for (let n = 0; n < count; n += 1) attempt(order)
}, TICK_MS)

createInterface({ input: process.stdin })
  .on('line', (line) => {
    order = line === '' ? undefined : (JSON.parse(line) as FloodOrder)
    if (order === undefined) process.stdout.write(`${sent}\n`)
    else [due, sent] = [0, 0]
  })
  .on('close', () => process.exit())
