/** `connect`: runs in a worker's pod, and lends its workers the pod's identity. */

import closeWithGrace from 'close-with-grace'
import { ConfigError } from '../config/config-error.ts'
import { checkConnect } from '../connect/check.ts'
import { ConnectPort } from '../connect/connect-port.ts'
import { findHostNetworkProblem } from '../connect/host-network.ts'
import {
  CONNECT_OPTIONS,
  readConnectOptions,
  type ConnectConfig,
  type Given,
} from '../connect/options.ts'
import { messageOf } from '../lib/errors.ts'
import { version } from '../version.ts'
import { readArguments } from './arguments.ts'
import { EXIT, runCommand, type CommandContext } from './command.ts'
import { logNodeWarnings } from './node-warnings.ts'
import { openOutputs } from './outputs.ts'
import { NOT_ENDING } from './signals.ts'

export const options = CONNECT_OPTIONS

/** How long the exit waits for slow readers of the log, in milliseconds. */
const OUTPUT_WAIT_MS = 1000
/** How long a stop may take, in milliseconds; then the process exits. */
const STOP_MS_MAX = 4500

/**
 * Resolves with an exit code if it could not start, or has only checked; otherwise a
 * signal ends the process.
 */
export const run = (context: CommandContext): Promise<number | undefined> =>
  runCommand(context, { name: 'connect', options }, async () => {
    const given: Given = readArguments(context.argv, CONNECT_OPTIONS)
    if (given.check === true) return check(given, context)
    const config = readConnectOptions(given)
    const place = { env: context.env, interfaces: context.interfaces() }
    const problem = findHostNetworkProblem(config.listen, place)
    if (problem !== undefined) throw new ConfigError([problem])
    return serveWorkers(config, context)
  })

/** Exits 0 when `connect` answers, 69 when it does not. */
async function check(given: Given, { clock, stderr }: CommandContext): Promise<number> {
  // Nothing but the address matters to a probe.
  const { listen } = readConnectOptions({ gateway: 'ws://localhost', ...pickListen(given) })
  try {
    await checkConnect(listen, clock)
    return EXIT.ok
  } catch (error) {
    stderr.write(`connect does not answer: ${messageOf(error)}\n`)
    return EXIT.dependency
  }
}

const pickListen = ({ listen }: Given): Given => (listen === undefined ? {} : { listen })

async function serveWorkers(
  config: ConnectConfig,
  { clock, readFile, signals }: CommandContext,
): Promise<number | undefined> {
  const { gateway, logLevel, ...rest } = config
  const outputs = openOutputs(logLevel, clock)
  process.once('exit', outputs.flush)
  const { log } = outputs
  logNodeWarnings(log)
  const target = { ...rest, url: gateway, readFile, clock }
  const port = new ConnectPort({ ...rest, target, clock, log })
  const grace = closeWithGrace(
    {
      delay: STOP_MS_MAX,
      logger: false,
      skip: [...NOT_ENDING],
      onTimeout: () => process.exit(1),
    },
    async ({ err, signal }) => {
      if (err === undefined) log.info({ signal }, 'stopping')
      else log.fatal({ err, stack: err.stack }, 'a bug was found: exiting')
      await port.close()
      await outputs.finish(OUTPUT_WAIT_MS)
      if (err !== undefined) process.exit(EXIT.bug)
    },
  )
  signals?.releaseEnding()
  try {
    const listen = await port.listen()
    const { sessionHosting } = config
    log.info({ listen, gateway: gateway.origin, sessionHosting, ...version }, 'listening')
    return undefined
  } catch (error) {
    grace.uninstall()
    log.fatal({ err: error }, 'connect could not start')
    await outputs.finish(OUTPUT_WAIT_MS)
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    return code === 'EACCES' ? EXIT.permission : EXIT.dependency
  }
}
