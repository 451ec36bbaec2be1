/** `connect` in this process, between a test's sockets and a server that stands for the gateway's sidecar. */

import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import {
  createServer as createPlainServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
} from 'node:http'
import { createServer as createTlsServer, type ServerOptions } from 'node:https'
import { connect as connectTcp, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { readFileBounded } from '@openclaw-k8s/auth-sidecar/config/files.ts'
import {
  ConnectPort,
  type ConnectPortOptions,
} from '@openclaw-k8s/auth-sidecar/connect/connect-port.ts'
import { DEFAULT_CREDENTIAL_HEADER } from '@openclaw-k8s/auth-sidecar/config/credential-header.ts'
import type { TargetOptions } from '@openclaw-k8s/auth-sidecar/connect/target.ts'
import { bracketed } from '@openclaw-k8s/auth-sidecar/lib/address.ts'
import { systemClock, type Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { createLog } from '@openclaw-k8s/auth-sidecar/observe/log.ts'
import { acceptKeyOf } from '@openclaw-k8s/auth-sidecar/websocket/accept-key.ts'
import { rawUpgrade, upgradeLines } from './raw-upgrade.ts'

export type Scope = { teardown: (stop: () => unknown) => unknown }
type OnUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

export type ConnectRigOptions = Partial<Pick<ConnectPortOptions, 'sessionHosting' | 'role'>> & {
  readonly clock?: Clock
  /** What the sidecar does with an upgrade; unless said otherwise it echoes bytes. */
  readonly onUpgrade?: OnUpgrade
  readonly onRequest?: RequestListener
  /** Where the sidecar listens; `127.0.0.1` unless said otherwise. */
  readonly host?: string
  /** TLS of the sidecar. */
  readonly tls?: ServerOptions
  readonly target?: Partial<TargetOptions>
  /** Where `connect` listens; unless said otherwise a free port. */
  readonly unixPath?: string
}

type LogRecord = Readonly<Record<string, unknown>> & { readonly msg: string }

export const TOKEN = 'the.current.token'

/** The head of a sidecar's 101 to this request. */
export const openingTo = (request: IncomingMessage, extra: readonly string[] = []): string =>
  [
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade',
    `Sec-WebSocket-Accept: ${acceptKeyOf(request.headers['sec-websocket-key'] ?? '')}`,
    ...extra,
    '\r\n',
  ].join('\r\n')

/** The headers of a request as they came, each as a line. */
export const fieldsOf = ({ rawHeaders }: IncomingMessage = { rawHeaders: [] } as never) =>
  Array.from({ length: rawHeaders.length / 2 }, (_, n) =>
    rawHeaders.slice(2 * n, 2 * n + 2).join(': '),
  )

const echo: OnUpgrade = (request, socket, head) => {
  socket.write(openingTo(request))
  socket.write(head)
  socket.pipe(socket)
}

export const startConnectRig = async (t: Scope, options: ConnectRigOptions = {}) => {
  const { clock = systemClock, host = '127.0.0.1', sessionHosting = false } = options
  const directory = mkdtempSync(join(tmpdir(), 'connect-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const tokenFile = join(directory, 'token')
  writeFileSync(tokenFile, `${TOKEN}\n`)

  const requests: IncomingMessage[] = []
  const sockets = new Set<Socket>()
  const onRequest: RequestListener = (request, response) => {
    requests.push(request)
    if (options.onRequest !== undefined) return options.onRequest(request, response)
    response.writeHead(404, { 'Content-Length': '0' }).end()
  }
  const upstream: Server =
    options.tls === undefined
      ? createPlainServer(onRequest)
      : createTlsServer(options.tls, onRequest)
  upstream.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => {}).once('close', () => sockets.delete(socket))
  })
  upstream.on('upgrade', (request, socket, head) => {
    requests.push(request)
    socket.on('error', () => {})
    ;(options.onUpgrade ?? echo)(request, socket, head)
  })
  await once(upstream.listen(0, host), 'listening')
  const upstreamPort = (upstream.address() as AddressInfo).port
  const stopUpstream = async () => {
    const closed = once(upstream, 'close')
    upstream.close()
    for (const socket of sockets) socket.destroy()
    await closed
  }
  t.teardown(() => (upstream.listening ? stopUpstream() : undefined))

  const lines: LogRecord[] = []
  const scheme = options.tls === undefined ? 'ws' : 'wss'
  const port = new ConnectPort({
    listen:
      options.unixPath === undefined
        ? { kind: 'tcp', host: '127.0.0.1', port: 0 }
        : { kind: 'unix', path: options.unixPath },
    sessionHosting,
    role: options.role,
    clock,
    log: createLog('trace', { write: (line) => void lines.push(JSON.parse(line) as LogRecord) }),
    target: {
      url: new URL(`${scheme}://${bracketed(host)}:${upstreamPort}`),
      tokenFile,
      credentialHeader: DEFAULT_CREDENTIAL_HEADER,
      serverName: undefined,
      caFile: undefined,
      certFile: undefined,
      keyFile: undefined,
      readFile: readFileBounded,
      clock,
      ...options.target,
    },
  })
  const address = await port.listen()
  t.teardown(() => port.close())
  const local = Number(address.split(':').at(-1))

  return {
    directory,
    tokenFile,
    writeToken: (token: string) => writeFileSync(tokenFile, token),
    port: local,
    url: `ws://127.0.0.1:${local}`,
    address,
    connect: port,
    upstream,
    upstreamPort,
    stopUpstream,
    /** Every request that reached the sidecar. */
    requests: requests as readonly IncomingMessage[],
    /** The connections of `connect` to the sidecar that are open. */
    upstreamSockets: sockets as ReadonlySet<Socket>,
    lines: lines as readonly LogRecord[],
    upgrade: (extra: readonly string[] = [], path = '/') =>
      rawUpgrade({ port: local, lines: upgradeLines(path, extra) }),
    /** An open stream whose ends come one by one, as on the wire. */
    open: async (): Promise<Socket> => {
      const target = { port: local, host: '127.0.0.1', allowHalfOpen: true }
      const socket = connectTcp(target).on('error', () => {})
      socket.write(`${upgradeLines().join('\r\n')}\r\n\r\n`)
      await once(socket, 'readable')
      const head = String(socket.read())
      if (!/^HTTP\/1\.1 101 .*\r\n\r\n$/s.test(head)) throw new Error(head)
      return socket
    },
    /** A bare connection that has sent nothing yet. */
    dial: async (): Promise<Socket> => {
      const socket = connectTcp({ port: local, host: '127.0.0.1' })
      socket.on('error', () => {})
      await once(socket, 'connect')
      return socket
    },
  }
}

export type ConnectRig = Awaited<ReturnType<typeof startConnectRig>>
