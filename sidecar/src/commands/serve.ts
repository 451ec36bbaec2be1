/** `serve`: runs the sidecar until it is told to stop. */

import closeWithGrace from 'close-with-grace'
import { systemNetwork } from '../lib/network.ts'
import { compose } from '../compose.ts'
import { checkFiles } from '../config/files.ts'
import { createReloader, loadConfig, type Loaded } from '../config/load.ts'
import { ConfigError } from '../config/config-error.ts'
import { watchFiles } from '../config/file-watch.ts'
import type { Config } from '../config/schema.ts'
import { accountNameOf } from '../identity.ts'
import type { Log } from '../observe/log.ts'
import { version } from '../version.ts'
import { CONFIG_OPTIONS } from './arguments.ts'
import { EXIT, readConfigArguments, runCommand, type CommandContext } from './command.ts'
import { logNodeWarnings } from './node-warnings.ts'
import { openOutputs } from './outputs.ts'
import { NOT_ENDING } from './signals.ts'

export const options = CONFIG_OPTIONS

/** How long the exit waits for slow readers of the outputs, in milliseconds. */
const OUTPUT_WAIT_MS = 1000
/** How long a stop may take beyond the drain window, in milliseconds; then the process exits. */
const STOP_SPARE_MS = 4500

/**
 * Resolves with an exit code if the sidecar could not start; otherwise a signal ends the process.
 */
export const run = (context: CommandContext): Promise<number | undefined> =>
  runCommand(context, { name: 'serve', options }, async () => serve(load(context), context))

function load(context: CommandContext): Loaded {
  const loaded = loadConfig(readConfigArguments(context))
  const problems = checkFiles(loaded.config, loaded.explicitPaths, context.readFile)
  if (problems.length > 0) throw new ConfigError(problems)
  return loaded
}

async function serve(loaded: Loaded, context: CommandContext) {
  const { config, warnings } = loaded
  const { clock, env, readFile, signals } = context
  const outputs = openOutputs(config.log.level, clock)
  process.once('exit', outputs.flush)
  const { log, writeAudit, linesDropped } = outputs
  log.info(describeStart(loaded), 'starting')
  for (const warning of warnings) log.warn(warning)
  logNodeWarnings(log)
  try {
    const sidecar = await compose(config, {
      clock,
      network: systemNetwork,
      random: Math.random,
      env,
      readFile,
      log,
      writeAudit,
      linesDropped,
      interfaces: context.interfaces(),
      version,
    })
    let bug: Error | undefined
    let isClosing = false
    const grace = closeWithGrace(
      {
        delay: config.drain.window + STOP_SPARE_MS,
        logger: false,
        skip: [...NOT_ENDING, 'uncaughtException'],
        onTimeout: () => process.exit(bug === undefined ? 1 : EXIT.bug),
      },
      async ({ err = bug }) => {
        isClosing = true
        bug = err
        if (err !== undefined)
          log.fatal({ err, stack: err.stack }, 'a bug was found: draining, then exiting')
        await sidecar.drain()
        await outputs.finish(OUTPUT_WAIT_MS)
        if (err !== undefined) process.exit(EXIT.bug)
      },
    )
    signals?.releaseEnding()
    process.on('uncaughtException', (error, origin) => {
      if (sidecar.survive(error, origin)) return
      // A second one, or one during a drain: an orderly stop is no longer possible.
      if (isClosing) process.exit(EXIT.bug)
      bug = error
      grace.close()
    })
    await sidecar.start().catch(async (error: unknown) => {
      // A signal has come meanwhile: what stops now cannot start, and ends the process.
      if (isClosing) return
      // It would take the empty event loop for a clean end and exit 0.
      grace.uninstall()
      await sidecar.stop()
      throw error
    })
    const loadAgain = createReloader(readConfigArguments(context), loaded)
    const reload = () => sidecar.reload(loadAgain)
    watchFiles({ files: filesOf(loaded), readFile, clock, onChanged: reload })
    signals?.onReload(reload)
    return undefined
  } catch (error) {
    const code = explain(error, config.listen, log)
    await outputs.finish(OUTPUT_WAIT_MS)
    return code
  }
}

/** The most entries of the allow-list that the first line shows. */
const ENTRIES_MAX = 10

/** What a reader of the log needs to know first. */
function describeStart({ config, file }: Loaded) {
  const { gateway, k8sTrust } = config
  const { tls } = config.listen
  const { allowedIdentities, audiences, enabled, sourceAddress } = k8sTrust
  const entries = allowedIdentities.map(accountNameOf)
  const others = entries.length - ENTRIES_MAX
  return {
    ...version,
    config: file ?? 'none',
    protocol: gateway.protocol,
    tls: tls === undefined ? 'off' : tls.clientCaFile === undefined ? 'on' : 'mutual',
    allowedIdentities: entries.slice(0, ENTRIES_MAX),
    ...(others > 0 ? { otherIdentities: others } : {}),
    audiences: audiences.slice(0, ENTRIES_MAX),
    sourceAddress,
    ...(enabled ? {} : { enabled }),
  }
}

/** The files that are read again when they change: the configuration and the certificates. */
function filesOf({ file, config }: Loaded): readonly string[] {
  const { tls } = config.listen
  return [file, tls?.certFile, tls?.keyFile, tls?.clientCaFile].filter((path) => path !== undefined)
}

function explain(error: unknown, listen: Config['listen'], log: Log): number {
  const { code, port } = (error instanceof Error ? error : {}) as ListenError
  const isPort = code !== undefined && Object.hasOwn(PORT_HINTS, code) && port !== undefined
  const hint = isPort ? PORT_HINTS[code] : undefined
  const option = listen.admin.port === port ? 'listen.admin' : 'listen.workers'
  const what = hint === undefined ? '' : `: it cannot listen on ${option}`
  log.fatal({ err: error, hint }, `the sidecar could not start${what}`)
  if (code === 'EACCES') return EXIT.permission
  return hint === undefined ? EXIT.config : EXIT.dependency
}

/** As of `net`: the port that could not be listened on. */
type ListenError = { readonly code?: string; readonly port?: number }

const PORT_HINTS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'Another process has this port: stop it, or set another port.',
  EADDRNOTAVAIL: 'This machine does not have this address: correct it, or listen on all with [::].',
  EACCES: 'This port needs privileges: set one from 1024 on.',
}
