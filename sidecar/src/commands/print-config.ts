/** `print-config`: prints the configuration with defaults filled in and secrets masked. */

import { loadConfig } from '../config/load.ts'
import { printConfig } from '../config/mask.ts'
import { CONFIG_OPTIONS } from './arguments.ts'
import { EXIT, readConfigArguments, runCommand } from './command.ts'
import type { CommandContext } from './command.ts'

export const options = CONFIG_OPTIONS

/** Exits 0 with YAML that loads again, or 78 with one entry for each problem. */
export const run = (context: CommandContext): Promise<number> =>
  runCommand(context, { name: 'print-config', options }, () => {
    const { config, warnings } = loadConfig(readConfigArguments(context))
    for (const warning of warnings) context.stderr.write(`Warning: ${warning}\n`)
    context.stdout.write(printConfig(config))
    return EXIT.ok
  })
