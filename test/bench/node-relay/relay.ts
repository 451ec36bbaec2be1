/** The least that relaying costs on Node: two sockets joined byte by byte, and nothing looked at. */

import { readFileSync } from 'node:fs'
import { connect, createServer as createPlainServer, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: {
    upstream: { type: 'string' },
    cert: { type: 'string' },
    key: { type: 'string' },
  },
})
const [host = '', port = ''] = (values.upstream ?? '').split(':')

const join = (worker: Socket): void => {
  const gateway = connect({ host, port: Number(port), noDelay: true })
  pass(worker, gateway)
  pass(gateway, worker)
}

const pass = (from: Socket, to: Socket): void => {
  from.on('data', (chunk) => {
    if (!to.write(chunk)) from.pause()
  })
  to.on('drain', () => from.resume())
  from.on('error', () => {})
  from.on('close', () => to.destroy())
}

// The benchmark ends, and so does what it has started.
process.stdin.resume().on('end', () => process.exit(0))
const { cert, key } = values
const server =
  cert === undefined || key === undefined
    ? createPlainServer({ noDelay: true }, join)
    : createTlsServer({ cert: readFileSync(cert), key: readFileSync(key), noDelay: true }, join)
server.on('tlsClientError', () => {})
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  const address = server.address()
  if (address !== null && typeof address === 'object') {
    process.stdout.write(`127.0.0.1:${address.port}\n`)
  }
})
