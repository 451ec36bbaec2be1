/** The command line of the gateway stub. */

import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { behaviorNames, isBehaviorName } from './behavior.ts'
import type { BehaviorName } from './behavior.ts'
import { startGatewayStub } from './gateway-stub.ts'
import { describeHandshake } from './handshake.ts'

const HELP = `Usage: gateway-stub [options]

A stand-in gateway for demos and tests.

  --port N              port to listen on, 0 for any free one (default 18789)
  --host ADDRESS        address to listen on (default 127.0.0.1)
  --mode MODE           echo or openclaw (default echo)
  --token-file FILE     file with the shared secret that openclaw mode asks for
  --behavior NAME       ${behaviorNames.slice(0, 6).join(', ')},
                        ${behaviorNames.slice(6).join(', ')} (default accept)
  --help                show this text

In echo mode the text message "headers" is answered with the headers of the handshake.
`

/** sysexits(3). */
const EXIT = { usage: 64, unavailable: 69, config: 78 } as const

type Flags = {
  readonly port: number
  readonly host: string
  readonly mode: 'echo' | 'openclaw'
  readonly tokenFile: string | undefined
  readonly behavior: BehaviorName
  readonly help: boolean
}

class UsageError extends Error {}

function parseFlags(argv: readonly string[]): Flags {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      port: { type: 'string', default: '18789' },
      host: { type: 'string', default: '127.0.0.1' },
      mode: { type: 'string', default: 'echo' },
      'token-file': { type: 'string' },
      behavior: { type: 'string', default: 'accept' },
      help: { type: 'boolean', default: false },
    },
  })
  const { mode, behavior, host, help } = values
  const port = Number(values.port)
  if (!/^\d{1,5}$/.test(values.port) || port > 65_535) throw new UsageError('--port: 0 to 65535')
  if (mode !== 'echo' && mode !== 'openclaw') throw new UsageError('--mode: echo or openclaw')
  if (!isBehaviorName(behavior)) {
    throw new UsageError(`--behavior: one of ${behaviorNames.join(', ')}`)
  }
  return { port, host, mode, behavior, help, tokenFile: values['token-file'] }
}

/** Ends the process with this code once its output is written. */
function fail(code: number, message: string): void {
  process.stderr.write(`gateway-stub: ${message}\n`)
  process.exitCode = code
}

function readFlags(): Flags | undefined {
  try {
    return parseFlags(process.argv.slice(2))
  } catch (cause) {
    fail(EXIT.usage, `${messageOf(cause)}\nTry --help.`)
    return undefined
  }
}

function readToken(file: string): string | undefined {
  try {
    const token = readFileSync(file, 'utf8').trim()
    if (token !== '') return token
    fail(EXIT.config, `--token-file ${file}: the file is empty`)
  } catch (cause) {
    fail(EXIT.config, `--token-file: ${messageOf(cause)}`)
  }
  return undefined
}

async function main(): Promise<void> {
  const flags = readFlags()
  if (flags === undefined) return
  if (flags.help) {
    process.stdout.write(HELP)
    return
  }
  const { host, port, mode, behavior, tokenFile } = flags
  const token = tokenFile === undefined ? undefined : readToken(tokenFile)
  if (tokenFile !== undefined && token === undefined) return
  try {
    const stub = await startGatewayStub({
      host,
      port,
      mode,
      behavior,
      ...(token === undefined ? {} : { token }),
      onHandshake: (handshake) => process.stdout.write(`${describeHandshake(handshake)}\n`),
    })
    process.stdout.write(`gateway stub (${mode}, ${behavior}) listens on ${stub.url}\n`)
    // As PID 1 a process ignores signals it does not handle.
    const stop = (): void => void stub.close()
    process.once('SIGINT', stop)
    process.once('SIGTERM', stop)
  } catch (cause) {
    fail(EXIT.unavailable, messageOf(cause))
  }
}

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : 'failed')

await main()
