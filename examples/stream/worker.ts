/** A worker in Node: sends its pod's token and a hello, prints the echo, and reconnects. */

import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'

const {
  GATEWAY_URL = 'ws://openclaw-gateway:18789',
  TOKEN_FILE = '/var/run/secrets/openclaw/token',
  BACKOFF_MS = '1000',
} = process.env
const BACKOFF_MS_MAX = 30_000
const CONNECT_MS_MAX = 10_000
/** The sidecar pings a silent worker every 20 s (`limits.idlePing`). */
const SILENCE_MS_MAX = 90_000

type Ending = {
  readonly why: string
  /** The worker was refused: another try would fail the same way. */
  readonly isFinal: boolean
  /** The other side restarts: a replacement is ready. */
  readonly isRestart: boolean
  readonly hasReceived: boolean
}

const print = (line: string): void => void process.stdout.write(`${line}\n`)

/** One stream, from the connection to its end. */
const runStream = async (): Promise<Ending> => {
  const token = (await readFile(TOKEN_FILE, 'utf8')).trim()
  const socket = new WebSocket(GATEWAY_URL, {
    headers: { authorization: `Bearer ${token}` },
    handshakeTimeout: CONNECT_MS_MAX,
    perMessageDeflate: false,
  })
  const silence = setTimeout(() => socket.terminate(), SILENCE_MS_MAX)
  let hasReceived = false
  let why = ''
  let status = 0
  socket.on('ping', () => silence.refresh())
  socket.on('open', () => socket.send('hello from Node'))
  socket.on('message', (data: Buffer) => {
    hasReceived = true
    silence.refresh()
    print(`received: ${data.toString()}`)
  })
  // A `close` event follows each error.
  socket.on('error', (error) => (why = error.message))
  socket.on('unexpected-response', (request, response) => {
    status = response.statusCode ?? 0
    request.destroy(new Error(`HTTP ${status}`))
  })
  const { code, reason } = await new Promise<{ code: number; reason: string }>((resolve) => {
    socket.on('close', (closeCode, bytes) => resolve({ code: closeCode, reason: bytes.toString() }))
  })
  clearTimeout(silence)
  const isRefusedByHttp = status >= 400 && status < 500 && status !== 408 && status !== 429
  return {
    why: why === '' ? `${code} ${reason}` : why,
    isFinal: isRefusedByHttp || (code === 1008 && reason !== 'token_expired'),
    isRestart: code === 1012,
    hasReceived,
  }
}

let failures = 0
for (;;) {
  const { why, isFinal, isRestart, hasReceived } = await runStream()
  print(`closed: ${why}`)
  if (isFinal) process.exit(1)
  if (hasReceived || isRestart) failures = 0
  const longestMs = Math.min(Number(BACKOFF_MS) * 2 ** failures, BACKOFF_MS_MAX)
  failures += 1
  await sleep(longestMs * Math.random())
}
