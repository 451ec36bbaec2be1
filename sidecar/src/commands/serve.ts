/** `serve`: runs the sidecar until it is told to stop. */

import { destination } from 'pino'
import closeWithGrace from 'close-with-grace'
import { compose } from '../compose.ts'
import { checkFiles } from '../config/files.ts'
import { loadConfig, type Loaded } from '../config/load.ts'
import { ConfigError } from '../config/problems.ts'
import { watchFiles } from '../config/reload.ts'
import type { Config } from '../config/schema.ts'
import { createLog, type Log } from '../observe/log.ts'
import { version } from '../version.ts'
import { EXIT, parseConfigArguments, runCommandAsync, type CommandContext } from './command.ts'

const USAGE = 'auth-sidecar serve [--config FILE] [--set path=value]…'

/** Audit lines that may wait for a slow reader, in bytes; beyond it new ones are dropped. */
const AUDIT_BUFFER_BYTES_MAX = 8 * 1024 * 1024
/** Audit lines are written together, once they are so many bytes or the first is so old, in milliseconds. */
const AUDIT_WRITE_BYTES = 4096
const AUDIT_DELAY_MS = 100
/** What a drain may take beyond its window, in milliseconds. */
const STOP_SPARE_MS = 15_000

/** Resolves with an exit code when the sidecar could not start; else the process ends by a signal. */
export const run = (context: CommandContext): Promise<number | undefined> =>
  runCommandAsync(context, USAGE, async () => serve(load(context), context))

function load(context: CommandContext): Loaded {
  const loaded = loadConfig(parseConfigArguments(context))
  const problems = checkFiles(loaded.config, loaded.explicitPaths, context.readFile)
  if (problems.length > 0) throw new ConfigError(problems)
  return loaded
}

async function serve({ config, warnings }: Loaded, context: CommandContext) {
  const log = createLog(config.log.level)
  for (const warning of warnings) log.warn(warning)
  const audit = destination({
    fd: 1,
    sync: false,
    minLength: AUDIT_WRITE_BYTES,
    periodicFlush: AUDIT_DELAY_MS,
    maxLength: AUDIT_BUFFER_BYTES_MAX,
  })
  try {
    const sidecar = await compose(config, {
      clock: context.clock,
      random: Math.random,
      env: context.env,
      readFile: context.readFile,
      log,
      writeAudit: (line) => void audit.write(line),
      version,
    })
    let bug: Error | undefined
    let isClosing = false
    const grace = closeWithGrace(
      { delay: config.drain.window + STOP_SPARE_MS, logger: false, skip: ['uncaughtException'] },
      async ({ err = bug }) => {
        isClosing = true
        if (err !== undefined)
          log.fatal({ err, stack: err.stack }, 'a bug: draining, then giving up')
        await sidecar.drain()
        audit.flushSync()
        if (err !== undefined) process.exit(EXIT.bug)
      },
    )
    process.on('uncaughtException', (error, origin) => {
      if (sidecar.survive(error, origin)) return
      // A second one, or one during a drain: there is nothing left to do in order.
      if (isClosing) process.exit(EXIT.bug)
      bug = error
      grace.close()
    })
    await sidecar.start().catch(async (error: unknown) => {
      // It would take the empty loop for a clean end and exit 0.
      grace.uninstall()
      await sidecar.stop()
      throw error
    })
    watchFiles({
      files: filesOf(config, context),
      readFile: context.readFile,
      clock: context.clock,
      onChanged: () => sidecar.reload(() => load(context).config),
    })
    return undefined
  } catch (error) {
    return explain(error, log)
  }
}

/** What is read again when it changes: the configuration and the certificates. */
function filesOf({ listen: { tls } }: Config, context: CommandContext): readonly string[] {
  const { file } = parseConfigArguments(context)
  return [file, tls?.certFile, tls?.keyFile, tls?.clientCaFile].filter((path) => path !== undefined)
}

function explain(error: unknown, log: Log): number {
  log.fatal({ err: error }, 'the sidecar could not start')
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'EACCES') return EXIT.permission
  return code === 'EADDRINUSE' || code === 'EADDRNOTAVAIL' ? EXIT.dependency : EXIT.config
}
