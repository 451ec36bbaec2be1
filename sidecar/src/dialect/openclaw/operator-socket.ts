/** One connection as the gateway's operator, from the dial to its end. */

import type { Socket } from 'node:net'
import { Agent, WebSocket } from 'undici'
import type { Clock } from '../../lib/clock.ts'
import { systemNetwork, type Network } from '../../lib/network.ts'
import {
  PROTOCOL,
  readChallenge,
  readResponse,
  refusalCodeOf,
  type ResponseFrame,
} from './frames.ts'
import { GatewayRefused } from '../../gateway-refusal.ts'
import type { GatewayAuth } from './gateway-connect.ts'
import { readRefusedUpgrade } from './refused-upgrade.ts'

export type OperatorSocketOptions = {
  readonly url: URL
  readonly auth: GatewayAuth
  readonly clock: Clock
  /** The machine's own unless said otherwise. */
  readonly network?: Network | undefined
  readonly version: string
  readonly messageBytesMax: number
  /** Called with the capabilities of the gateway's challenge. */
  readonly onHello: (capabilities: readonly string[]) => void
  /** Every message after the hello. */
  readonly onMessage: (text: string) => void
  /** The connection is over. Called at most once. */
  readonly onDown: (error: Error) => void
}

export type OperatorSocket = {
  readonly send: (text: string) => void
  /** Ends the connection at once. */
  readonly destroy: (reason?: Error) => void
}

/** The oldest version that speaks our protocol. */
const OLDEST_VERSION = '2026.5.12'
const CONNECT_MS_MAX = 5000
/**
 * OpenClaw answers a wrong secret from loopback later each time, up to 5 s, and later still while it
 * gets others: a shorter limit would hide its reason.
 */
const HELLO_MS_MAX = 15_000
const CONNECT_ID = 'operator'

/**
 * A WebSocket without forwarded headers and without an `Origin`: since it comes from loopback, the
 * gateway takes it for its owner's, and the secret then carries the scopes. No byte of a worker
 * ever gets here.
 */
export function openOperatorSocket(options: OperatorSocketOptions): OperatorSocket {
  const { auth, clock, network = systemNetwork, onDown, onHello, onMessage, url, version } = options
  const tcp = keepSocket(network)
  const dispatcher = new Agent({
    connect: tcp.connect,
    webSocket: { maxPayloadSize: options.messageBytesMax },
  }).compose(readRefusedUpgrade({ clock, onRefused: (refused) => end(refused) }))
  const socket = new WebSocket(url, { dispatcher })
  let stage: 'dialed' | 'asked' | 'ready' | 'over' = 'dialed'
  let capabilities: readonly string[] = []
  const end = (reason: Error) => {
    if (stage === 'over') return
    stage = 'over'
    cancelTimer()
    tcp.destroy()
    void dispatcher.destroy().catch(() => {})
    onDown(reason)
  }
  let cancelTimer = clock.after(CONNECT_MS_MAX, () => {
    // OpenClaw sends its challenge with the upgrade: a server that sends none is another one.
    const isOther = socket.readyState === WebSocket.OPEN
    end(
      isOther
        ? new GatewayRefused('no_challenge', '')
        : new Error(`the gateway did not upgrade the connection within ${CONNECT_MS_MAX} ms`),
    )
  })
  const greet = (text: string) => {
    const challenge = stage === 'dialed' ? readChallenge(text) : undefined
    if (challenge !== undefined) {
      stage = 'asked'
      cancelTimer()
      cancelTimer = clock.after(HELLO_MS_MAX, () =>
        end(new Error(`no hello within ${HELLO_MS_MAX} ms`)),
      )
      capabilities = challenge.capabilities ?? []
      socket.send(connectFrame(auth, version))
      return
    }
    const response = readResponse(text)
    if (response?.id !== CONNECT_ID) return
    if (!response.ok) return end(errorOf(response))
    stage = 'ready'
    cancelTimer()
    onHello(capabilities)
  }
  socket.addEventListener('message', ({ data }) => {
    if (stage === 'over' || typeof data !== 'string') return
    if (stage === 'ready') onMessage(data)
    else greet(data)
  })
  socket.addEventListener('error', ({ error }) =>
    end(new Error('the gateway cannot be reached', { cause: error })),
  )
  socket.addEventListener('close', ({ code, reason }) =>
    end(new Error(`the gateway closed the connection with ${code} ${reason}`.trimEnd())),
  )
  return {
    send(text) {
      if (stage === 'ready') socket.send(text)
    },
    destroy: (reason = new Error('stopped')) => end(reason),
  }
}

/** A gateway that speaks an older protocol only has no way for the sidecar. */
function errorOf(response: ResponseFrame): Error {
  const { expectedProtocol = PROTOCOL } = response.error?.details ?? {}
  const reason = refusalCodeOf(response)
  if (expectedProtocol >= PROTOCOL) {
    return new GatewayRefused(reason, 'the gateway refused the operator connection')
  }
  const what = `the gateway speaks protocol ${expectedProtocol}`
  const remedy = `Update OpenClaw to ${OLDEST_VERSION} or newer at the gateway.`
  return new GatewayRefused(reason, what, remedy)
}

/** The dispatcher no longer controls an upgraded socket. To end it at once, keep a reference. */
function keepSocket({ buildConnector }: Network) {
  const connector = buildConnector({ timeout: CONNECT_MS_MAX })
  let kept: Socket | undefined
  let isOver = false
  const connect: typeof connector = (target, callback) =>
    connector(target, (...result) => {
      kept = result[1] ?? undefined
      if (isOver) kept?.destroy()
      callback(...result)
    })
  const destroy = () => {
    isOver = true
    kept?.destroy()
  }
  return { connect, destroy }
}

/** `operator.admin` is the least scope that may create bootstrap tokens. */
const connectFrame = (auth: GatewayAuth, version: string): string =>
  JSON.stringify({
    type: 'req',
    id: CONNECT_ID,
    method: 'connect',
    params: {
      minProtocol: PROTOCOL,
      maxProtocol: PROTOCOL,
      client: {
        id: 'gateway-client',
        displayName: 'auth-sidecar',
        version,
        platform: process.platform,
        mode: 'backend',
      },
      role: 'operator',
      scopes: ['operator.admin'],
      caps: [],
      auth,
    },
  })
