/** Stands between the sidecar and its gateway, and makes the gateway say whatever a plan says. */

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import * as fc from 'fast-check'
import { bytes, frames, mutate, mutation, type Mutation } from './bytes.ts'

type Cut = 'none' | 'fin' | 'reset'

/** What happens to one connection to the gateway. */
export type Mischief = {
  /** Sent in place of the gateway, which is then not asked. */
  readonly script: Script | undefined
  /** Changes to what the gateway says, `at` being bytes from its start. */
  readonly mutations: readonly Mutation[]
  /** After how many bytes the gateway is cut off, and how. */
  readonly cutAt: number
  readonly cut: Cut
}

/** An answer to the upgrade, and what follows it. */
type Script = { readonly head: string; readonly rest: Buffer }

/** Text of the gateway that no worker may read. */
export const GATEWAY_SECRET = 'said-by-the-gateway'
/** Stands for the right `Sec-WebSocket-Accept`. */
const ACCEPT = '<accept>'
const ACCEPT_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
const HONEST: Mischief = { script: undefined, mutations: [], cutAt: 0, cut: 'none' }

/** Most answers are good; otherwise nothing after one would ever be heard. */
const often = <T>(usual: T, ...others: readonly T[]): fc.Arbitrary<T> =>
  fc.oneof(
    { weight: 9, arbitrary: fc.constant(usual) },
    { weight: 1, arbitrary: fc.constantFrom(...others) },
  )

const lines = often(
  ['Upgrade: websocket', 'Connection: Upgrade', `Sec-WebSocket-Accept: ${ACCEPT}`],
  [
    'Upgrade: websocket',
    'Connection: Upgrade',
    'Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=',
  ],
  ['Connection: Upgrade', `Sec-WebSocket-Accept: ${ACCEPT}`],
  ['Upgrade: websocket', `Sec-WebSocket-Accept: ${ACCEPT}`],
  ['Content-Length: 5'],
)

const script: fc.Arbitrary<Script> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc
      .record({
        status: often(
          '101 Switching Protocols',
          '101 x',
          '101',
          '200 OK',
          '302 Found',
          '401 No',
          '503 Busy',
          '099 x',
          '1010 x',
        ),
        version: often('HTTP/1.1', 'HTTP/1.0', 'HTTP/2'),
        usual: lines,
        extra: fc.oneof(
          { weight: 3, arbitrary: fc.constant<string[]>([]) },
          {
            weight: 1,
            arbitrary: fc.array(
              fc.constantFrom(
                'Sec-WebSocket-Extensions: permessage-deflate',
                'Sec-WebSocket-Protocol: a',
                'Transfer-Encoding: chunked',
                'Content-Length: 0',
                ' folded',
                'no colon',
                `X: ${GATEWAY_SECRET}`,
                `X: ${'x'.repeat(17_000)}`,
                'Upgrade: h2c',
                'a\0: b',
                'Set-Cookie: a=b',
              ),
              { maxLength: 2 },
            ),
          },
        ),
        rest: frames(false).filter((wire) => wire.length < 20_000),
      })
      .map(({ status, version, usual, extra, rest }) => ({
        head: `${[`${version} ${status}`, ...extra, ...usual].join('\r\n')}\r\n\r\n`,
        rest: Buffer.concat([
          status.startsWith('101') ? Buffer.alloc(0) : Buffer.from(GATEWAY_SECRET),
          rest,
        ]),
      })),
  },
  { weight: 1, arbitrary: bytes(60).map((rest) => ({ head: '', rest })) },
)

/** The more is scripted, the less the gateway itself is heard. */
export const mischief = (scriptedShare: number): fc.Arbitrary<Mischief> =>
  fc.record({
    script: fc
      .double({ min: 0, max: 1, noNaN: true })
      .chain((share) => (share < scriptedShare ? script : fc.constant(undefined))),
    mutations: fc.oneof(
      { weight: 1, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.array(mutation, { maxLength: 2 }) },
    ),
    cutAt: fc.nat(3000),
    cut: fc.oneof(
      { weight: 3, arbitrary: fc.constant('none' as const) },
      { weight: 1, arbitrary: fc.constantFrom('fin' as const, 'reset' as const) },
    ),
  })

export type Mangler = Awaited<ReturnType<typeof startMangler>>

/** `gatewayPort` is the true gateway's. */
export const startMangler = async (gatewayPort: number) => {
  const planned: Mischief[] = []
  const sockets = new Set<Socket>()
  const operators = new Set<Socket>()
  const keep = (socket: Socket): Socket => {
    socket.on('error', () => {})
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    return socket
  }
  const server = createServer({ allowHalfOpen: true }, (sidecar) => {
    keep(sidecar)
    let isRelayed = false
    // A probe of the port sends nothing, and a script does not wait for the other side.
    sidecar.on('end', () => {
      if (!isRelayed) sidecar.end()
    })
    sidecar.once('data', (first: Buffer) => {
      // The operator's channel is the connection without a forwarded address.
      const isOperator = !/^x-forwarded-for:/im.test(first.toString('latin1'))
      if (isOperator) operators.add(sidecar)
      sidecar.once('close', () => operators.delete(sidecar))
      const plan = isOperator ? HONEST : (planned.shift() ?? HONEST)
      isRelayed = plan.script === undefined
      if (plan.script === undefined) relay(sidecar, first, plan)
      else say(sidecar, first, plan.script)
    })
  })
  const relay = (sidecar: Socket, first: Buffer, plan: Mischief): void => {
    const gateway = keep(connect({ host: '127.0.0.1', port: gatewayPort, allowHalfOpen: true }))
    gateway.write(first)
    sidecar.on('data', (chunk: Buffer) => void gateway.write(chunk))
    sidecar.on('end', () => gateway.end())
    sidecar.on('close', () => gateway.destroy())
    let said = 0
    gateway.on('data', (chunk: Buffer) => {
      const end = plan.cut === 'none' ? Number.POSITIVE_INFINITY : plan.cutAt - said
      sidecar.write(mutateAt(chunk.subarray(0, Math.max(0, end)), said, plan.mutations))
      said += chunk.length
      if (chunk.length < end) return
      gateway.destroy()
      if (plan.cut === 'reset') sidecar.resetAndDestroy()
      else sidecar.end()
    })
    gateway.on('end', () => sidecar.end())
    gateway.on('close', () => void sidecar.end())
  }
  const say = (sidecar: Socket, request: Buffer, { head, rest }: Script): void => {
    const [, key = ''] = /^sec-websocket-key: *(\S+)/im.exec(request.toString('latin1')) ?? []
    const accept = createHash('sha1')
      .update(key + ACCEPT_GUID)
      .digest('base64')
    sidecar.write(Buffer.from(head.replaceAll(ACCEPT, accept), 'latin1'))
    sidecar.write(rest)
    sidecar.resume()
  }
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`,
    /** For the next connections made for workers, in this order; others are honest. */
    plan: (next: readonly Mischief[]): void => {
      planned.splice(0, planned.length, ...next)
    },
    /** Says something on the operator's channel, between whatever else is said there. */
    injectToOperator: (wire: Buffer): void => {
      for (const socket of operators) socket.write(wire)
    },
    openSockets: () => sockets.size,
    stop: async (): Promise<void> => {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Those of the changes that fall into a chunk which starts at `start`. */
const mutateAt = (chunk: Buffer, start: number, mutations: readonly Mutation[]): Buffer =>
  mutate(
    chunk,
    mutations
      .filter(({ at }) => at >= start && at < start + chunk.length)
      .map((each) => ({ ...each, at: each.at - start })),
  )
