/** `print-config`: prints the configuration with defaults filled in and secrets masked. */

import { loadConfig } from '../config/load.ts'
import { printConfig } from '../config/mask.ts'
import { EXIT, parseConfigArguments, runCommand } from './command.ts'
import type { CommandContext } from './command.ts'

const USAGE = 'auth-sidecar print-config [--config FILE] [--set path=value]…'

/** Exits 0 with YAML that loads again, or 78 with one entry for each problem. */
export const run = (context: CommandContext): Promise<number> =>
  runCommand(context, USAGE, () => {
    const { config, warnings } = loadConfig(parseConfigArguments(context))
    for (const warning of warnings) context.stderr.write(`Warning: ${warning}\n`)
    context.stdout.write(printConfig(config))
    return EXIT.ok
  })
