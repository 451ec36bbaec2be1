/** A custom gateway: echoes over WebSocket what workers send that the sidecar has authenticated. */

import { createServer, type IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { WebSocketServer, type WebSocket } from 'ws'

const {
  PORT = '18789',
  JWKS_URL = 'http://127.0.0.1:9464/.well-known/jwks.json',
  AUDIENCE = 'openclaw-gateway',
} = process.env
const ISSUER = 'openclaw-auth-sidecar'
const MESSAGE_BYTES_MAX = 1024 * 1024

const keys = createRemoteJWKSet(new URL(JWKS_URL))
const sockets = new WebSocketServer({ noServer: true, maxPayload: MESSAGE_BYTES_MAX })
const server = createServer((_, response) => response.writeHead(426).end())
const print = (line: string): void => void process.stdout.write(`${line}\n`)

/** The ServiceAccount and the pod, proven by the sidecar's signature; throws without one. */
const identify = async ({ headers }: IncomingMessage): Promise<string> => {
  const assertion = String(headers['x-openclaw-k8s-assertion'] ?? '')
  const { payload } = await jwtVerify(assertion, keys, {
    issuer: ISSUER,
    audience: AUDIENCE,
    algorithms: ['EdDSA'],
    requiredClaims: ['exp', 'sub'],
  })
  const { pod } = payload['kubernetes.io'] as { readonly pod: { readonly name: string } }
  return `${payload.sub} in pod ${pod.name}`
}

const echo = (stream: WebSocket): void => {
  stream.on('error', () => stream.terminate())
  stream.on('message', (data, isBinary) => stream.send(data, { binary: isBinary }))
}

const admit = async (request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> => {
  // A peer can vanish while its assertion is verified. Without a listener that error ends the
  // process.
  socket.on('error', () => socket.destroy())
  try {
    print(`connected: ${await identify(request)}`)
  } catch (error) {
    print(`refused: ${String(error)}`)
    socket.end('HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
    return
  }
  sockets.handleUpgrade(request, socket, head, echo)
}

server.on('upgrade', (request, socket, head) => void admit(request, socket, head))

// Loopback only: nobody can bypass the sidecar.
server.listen(Number(PORT), '127.0.0.1', () => {
  print(`listening on ${JSON.stringify(server.address())}`)
})

process.once('SIGTERM', () => {
  for (const stream of sockets.clients) stream.close(1012, 'restart')
  server.close()
})
