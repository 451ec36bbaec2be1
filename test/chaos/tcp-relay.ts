/** A relay of bytes on one leg that delays, stalls, resets, or goes silent, as a bad network would. */

import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

type Leg = {
  readonly port: number
  readonly target: number
  /** The target sees the caller's address, as without a relay. */
  readonly keepsAddress?: boolean
}

const HOST = '127.0.0.1'

export const startTcpRelay = async ({ port, target, keepsAddress = false }: Leg) => {
  const pairs = new Set<Pair>()
  let delayMs = 0
  let going = Promise.withResolvers<void>()
  going.resolve()

  /** Every chunk waits for its turn; a stalled or slow leg is not read, and TCP holds the peer back. */
  const pump = (from: Socket, to: Socket, pair: Pair): void => {
    const pass = async (chunk: Buffer) => {
      if (delayMs > 0) await sleep(delayMs)
      await going.promise
      // Nobody hears that the peer is gone.
      if (pair.isLost) return
      if (!to.write(chunk) && !to.destroyed) await drained(to)
      from.resume()
    }
    from.on('data', (chunk: Buffer) => {
      from.pause()
      void pass(chunk)
    })
    from.on('end', () => {
      void going.promise.then(() => (pair.isLost ? undefined : to.end()))
    })
  }

  const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
    const localAddress = keepsAddress ? { localAddress: near.remoteAddress } : {}
    const far = connect({
      host: HOST,
      port: target,
      noDelay: true,
      allowHalfOpen: true,
      ...localAddress,
    })
    const pair = { near, far, isLost: false }
    pairs.add(pair)
    for (const socket of [near, far]) socket.on('error', () => {})
    const forget = () => void (near.closed && far.closed && pairs.delete(pair))
    near.on('close', () => {
      if (!far.writableEnded) far.destroy()
      forget()
    })
    far.on('close', () => {
      if (!pair.isLost && !near.writableEnded) near.resetAndDestroy()
      forget()
    })
    pump(near, far, pair)
    pump(far, near, pair)
  })
  server.listen(port, HOST)
  await once(server, 'listening')

  return {
    delay(ms: number): void {
      delayMs = ms
    },
    stall(): void {
      going = Promise.withResolvers<void>()
    },
    /** Connections in both directions end by RST. */
    reset(): void {
      for (const { near, far } of pairs) {
        near.resetAndDestroy()
        far.resetAndDestroy()
      }
    },
    /** The open connections stay open for the caller and never carry another byte; new ones are served. */
    lose(): void {
      for (const pair of pairs) {
        pair.isLost = true
        pair.far.destroy()
      }
    },
    heal(): void {
      delayMs = 0
      going.resolve()
    },
    stop: async (): Promise<void> => {
      going.resolve()
      for (const { near, far } of pairs) {
        near.destroy()
        far.destroy()
      }
      server.close()
      await once(server, 'close')
    },
  }
}

type Pair = { readonly near: Socket; readonly far: Socket; isLost: boolean }

const drained = (socket: Socket): Promise<void> =>
  new Promise((resolve) => {
    const settle = () => {
      socket.off('drain', settle).off('close', settle)
      resolve()
    }
    socket.on('drain', settle).on('close', settle)
  })
