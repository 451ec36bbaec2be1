/** A worker to play with: connects with a token file, sends each line of stdin, prints what comes. */

import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { closed, connectWorker, nextMessage } from '../kit/worker-client.ts'

const USAGE = 'Usage: node test/demo/connect.ts URL --token-file FILE [--from ADDRESS]'

const readArguments = () => {
  try {
    return parseArgs({
      options: { 'token-file': { type: 'string' }, from: { type: 'string' } },
      allowPositionals: true,
    })
  } catch {
    return { values: {}, positionals: [] }
  }
}
const { values, positionals } = readArguments()
const [url] = positionals
const { 'token-file': tokenFile, from } = values

if (url === undefined || tokenFile === undefined) {
  process.stderr.write(`${USAGE}\n`)
  process.exitCode = 64
} else await converse(url, tokenFile)

async function converse(to: string, file: string): Promise<void> {
  const token = readFileSync(file, 'utf8').trim()
  const outcome = await connectWorker({
    url: to,
    token,
    ...(from === undefined ? {} : { localAddress: from }),
  })
  if (!outcome.ok) {
    process.stderr.write(`${outcome.status} ${JSON.stringify(outcome.body)}\n`)
    process.exitCode = 1
    return
  }
  const { socket } = outcome
  process.stderr.write('Connected. Type a message; "headers" shows what the gateway saw.\n')
  const input = createInterface({ input: process.stdin })
  input.on('line', (line) => socket.send(line))
  // A message that was sent may still be on its way back: the close handshake comes behind it.
  input.on('close', () => socket.close(1000))
  const print = async (): Promise<void> => {
    for (;;) process.stdout.write(`${(await nextMessage(socket)).text}\n`)
  }
  await print().catch(() => {})
  const { code, reason } = await closed(socket)
  process.stderr.write(`Closed ${[code, reason].join(' ').trimEnd()}\n`)
  input.close()
}
