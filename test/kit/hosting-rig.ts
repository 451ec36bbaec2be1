/** A rig whose pods may host sessions: nodes with a live stream, and a gateway that serves the routes. */

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import { startOpenClawRig, type OpenClawRigOptions } from './openclaw-rig.ts'
import { rawUpgrade, upgradeLines, type RawAnswer, type RawRequest } from './raw-upgrade.ts'

export const HASH = '0123456789abcdef'.repeat(4)
export const ENVIRONMENT = '/__openclaw__/worker-transfer/v1/environments/worker%3A5f2c'
export const BUNDLE = `/__openclaw__/worker-bundle/v1/bundles/${HASH}`
export const RECONCILIATION = `${ENVIRONMENT}/reconciliations/${HASH}`
export const WORKER = '/__openclaw__/worker'
/** What the gateway gives a node for one operation. */
export const GATEWAY_TOKEN = 'a-token-of-the-gateway-with-43-characters-xx'
export const POD_ADDRESS = '127.0.0.11'

/** What the gateway got of a plain request. */
type Served = {
  readonly method: string
  readonly path: string
  readonly rawHeaders: readonly string[]
  readonly request: IncomingMessage
  /** Settles when the body has ended, with what there was of it. */
  readonly body: Promise<{
    readonly sha256: string
    readonly bytes: number
    readonly isWhole: boolean
  }>
}

export type HostingRigOptions = OpenClawRigOptions & {
  /** In place of reading the body and answering `{"ok":true}`. */
  readonly serve?: (served: Served, response: ServerResponse) => unknown
  readonly allow?: boolean
}

export type HostingRig = Awaited<ReturnType<typeof startHostingRig>>

export const allowList = (isHostingAllowed: boolean): string =>
  `k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker, allowSessionHosting: ${isHostingAllowed}}]`

export const startHostingRig = async ({
  serve,
  allow = true,
  ...options
}: HostingRigOptions = {}) => {
  const served: Served[] = []
  const listener: RequestListener = (request, response) => {
    // Resets are part of the tests.
    for (const stream of [request, response]) stream.on('error', () => {})
    const entry = {
      method: request.method ?? '',
      path: request.url ?? '',
      rawHeaders: request.rawHeaders,
      request,
      body: digest(request),
    }
    served.push(entry)
    if (serve === undefined) void entry.body.then(() => answer(response, 200, '{"ok":true}'))
    else serve(entry, response)
  }
  const rig = await startOpenClawRig({
    ...options,
    gateway: { ...options.gateway, serve: listener },
    set: ['gateway.sessionHosting=true', allowList(allow), ...(options.set ?? [])],
  })
  return {
    ...rig,
    /** The plain requests that reached the gateway. */
    served: served as readonly Served[],
    /** The gateway's connections of hosted workers. */
    hosted: () => [...rig.gateway.connections].filter(({ handshake }) => handshake.path === WORKER),
    ask: (lines: readonly string[], more: Partial<RawRequest> = {}) =>
      ask({ port: rig.port, lines, ...more }),
    get: (path = BUNDLE, extra: readonly string[] = [], more: Partial<RawRequest> = {}) =>
      ask({ port: rig.port, lines: getLines(path, extra), ...more }),
    post: (body: string, extra: readonly string[] = [], more: Partial<RawRequest> = {}) =>
      ask({ port: rig.port, bytes: `${postHead(body.length, extra)}${body}`, ...more }),
    upgrade: (extra: readonly string[] = [], more: Partial<RawRequest> = {}) =>
      ask({ port: rig.port, lines: upgradeLines(WORKER, extra), ...more }),
    /** A connection of the pod, for what no complete request can show. */
    open: async (localAddress = POD_ADDRESS): Promise<Socket> => {
      const socket = connect({ host: '127.0.0.1', port: rig.port, localAddress })
      socket.on('error', () => {})
      await once(socket, 'connect')
      return socket
    },
  }
}

export const getLines = (path: string, extra: readonly string[] = []): readonly string[] => [
  `GET ${path} HTTP/1.1`,
  'Host: gateway',
  `Authorization: Bearer ${GATEWAY_TOKEN}`,
  ...extra,
]

export const postHead = (length: number, extra: readonly string[] = []): string =>
  [
    `POST ${RECONCILIATION} HTTP/1.1`,
    'Host: gateway',
    `Authorization: Bearer ${GATEWAY_TOKEN}`,
    'Content-Type: application/vnd.openclaw.worker-workspace-reconcile-v1',
    `Content-Length: ${length}`,
    ...extra,
    '',
    '',
  ].join('\r\n')

export const answer = (response: ServerResponse, status: number, body: string | Buffer): void => {
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
  })
  response.end(body)
}

/** The code of a refusal, beside the answer. */
export type HostingAnswer = RawAnswer & { readonly code: string | undefined }

const ask = async (request: RawRequest): Promise<HostingAnswer> => {
  const got = await rawUpgrade({ localAddress: POD_ADDRESS, ...request })
  return { ...got, code: codeOf(got.body) }
}

const codeOf = (body: string): string | undefined => {
  try {
    return (JSON.parse(body) as { readonly error?: { readonly type?: string } }).error?.type
  } catch {
    return undefined
  }
}

const digest = async (request: IncomingMessage) => {
  const hash = createHash('sha256')
  let bytes = 0
  request.on('data', (chunk: Buffer) => {
    hash.update(chunk)
    bytes += chunk.length
  })
  await new Promise((resolve) => request.once('close', resolve))
  return { sha256: hash.digest('hex'), bytes, isWhole: request.complete }
}

export const valuesOf = (rawHeaders: readonly string[], name: string): readonly string[] =>
  rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === name)

export const namesOf = (rawHeaders: readonly string[]): readonly string[] =>
  rawHeaders.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase())
