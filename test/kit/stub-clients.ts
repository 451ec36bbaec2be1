/** Clients of the gateway stub, for the tests of the stub itself. */

import { createHash, generateKeyPairSync, sign } from 'node:crypto'
import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import { connect as connectTcp } from 'node:net'
import type { Socket } from 'node:net'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import type { GatewayStub, GatewayStubOptions } from '@openclaw-k8s/gateway-stub'
import { Journal } from '@openclaw-k8s/gateway-stub/journal.ts'
import type { Test } from 'tap'
import { WebSocket } from 'ws'
import type { ClientOptions } from 'ws'

export type Owner = Pick<Test, 'teardown'>
export type Message = { readonly data: Buffer; readonly isBinary: boolean }

export async function start(owner: Owner, options: GatewayStubOptions = {}): Promise<GatewayStub> {
  const stub = await startGatewayStub(options)
  owner.teardown(() => stub.close())
  return stub
}

/** An independent client that loses no message and no end. */
export function open(stub: GatewayStub, options: ClientOptions = {}, protocols: string[] = []) {
  const ws = new WebSocket(`${stub.url}/a/path?q=1`, protocols, options)
  const messages = new Journal<Message>({ entriesMax: 10_000 })
  const closed = Promise.withResolvers<{ code: number; reason: string }>()
  const failed = Promise.withResolvers<Error>()
  ws.on('message', (data, isBinary) => messages.add({ data: data as Buffer, isBinary }))
  ws.on('close', (code, reason) => closed.resolve({ code, reason: reason.toString() }))
  ws.on('error', (error) => failed.resolve(error))
  const opened = new Promise<void>((resolve) => ws.once('open', () => resolve()))
  let read = 0
  const nextMessage = (): Promise<Message> => messages.wait((read += 1))
  const nextFrame = async () => JSON.parse((await nextMessage()).data.toString())
  const ends = { closed: closed.promise, failed: failed.promise }
  return { ws, messages, opened, nextMessage, nextFrame, ...ends }
}

/** A hand-made upgrade on a bare socket; `text` is all that came until the other side ended. */
export async function openRaw(
  stub: GatewayStub,
): Promise<{ socket: Socket; text: Promise<string> }> {
  const socket = connectTcp(stub.port, '127.0.0.1')
  const chunks: Buffer[] = []
  const ended = Promise.withResolvers<string>()
  socket.on('data', (chunk) => chunks.push(chunk as Buffer))
  socket.on('error', () => {})
  socket.on('close', () => ended.resolve(Buffer.concat(chunks).toString('latin1')))
  socket.write(
    'GET / HTTP/1.1\r\nHost: stub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  )
  await stub.waitForHandshake(stub.handshakes.length + 1)
  return { socket, text: ended.promise }
}

export const upgradeHeaders = {
  Connection: 'Upgrade',
  Upgrade: 'websocket',
  'Sec-WebSocket-Version': '13',
  'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
}

/** The answer to an upgrade, its connection dropped. */
export async function upgrade(stub: GatewayStub, headers: OutgoingHttpHeaders) {
  const options = { port: stub.port, host: '127.0.0.1', path: '/a/path?q=1', headers }
  const request = httpRequest(options).end()
  const [answer, socket] = (await once(request, 'upgrade')) as [IncomingMessage, Socket]
  socket.destroy()
  return answer
}

export type ConnectOptions = {
  readonly auth?: Record<string, string>
  readonly proof?: 'v3' | 'v2'
  readonly client?: Record<string, unknown>
  readonly skewMs?: number
}

/** Plays a node's part: answers the challenge with a `connect` it signed. */
export function nodeConnect(
  challenge: { nonce: string; ts: number },
  options: ConnectOptions = {},
) {
  const { auth = { token: 'secret' }, proof = 'v3', skewMs = 0 } = options
  const pair = generateKeyPairSync('ed25519')
  const x = String(pair.publicKey.export({ format: 'jwk' }).x)
  const id = createHash('sha256').update(Buffer.from(x, 'base64url')).digest('hex')
  const signedAt = challenge.ts + skewMs
  const secret = auth['token'] ?? auth['deviceToken'] ?? auth['bootstrapToken'] ?? ''
  const parts = [proof, id, 'node-host', 'node', 'node', '', signedAt, secret, challenge.nonce]
  const text = [...parts, ...(proof === 'v3' ? ['linux', 'linux'] : [])].join('|')
  const signature = sign(null, Buffer.from(text), pair.privateKey).toString('base64url')
  return {
    minProtocol: 4,
    maxProtocol: 4,
    client: { id: 'node-host', mode: 'node', platform: 'linux', deviceFamily: 'Linux' },
    role: 'node',
    scopes: [] as string[],
    auth,
    device: { id, publicKey: x, signature, signedAt, nonce: challenge.nonce },
  }
}

export const requestFrame = (id: string, method: string, params: unknown) =>
  JSON.stringify({ type: 'req', id, method, params })

export async function openNode(stub: GatewayStub) {
  const client = open(stub)
  const { event, payload } = await client.nextFrame()
  if (event !== 'connect.challenge') throw new Error(`not a challenge: ${event}`)
  return { ...client, challenge: payload as { nonce: string; ts: number } }
}

export async function openReadyNode(stub: GatewayStub) {
  const node = await openNode(stub)
  const params = nodeConnect(node.challenge)
  node.ws.send(requestFrame('1', 'connect', params))
  const hello = await node.nextFrame()
  return { ...node, hello, deviceId: params.device.id }
}
