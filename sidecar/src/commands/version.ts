/** `version`: prints the version. */

import { version } from '../version.ts'
import { readArguments } from './arguments.ts'
import { EXIT, runCommand } from './command.ts'
import type { CommandContext } from './command.ts'

export const options = {}

export const run = (context: CommandContext): Promise<number> =>
  runCommand(context, { name: 'version', options }, () => {
    readArguments(context.argv, options)
    context.stdout.write(`${version.version}\n`)
    return EXIT.ok
  })
