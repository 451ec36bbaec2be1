/** `version`: prints the version. */

import { version } from '../version.ts'
import { EXIT, refuseArguments, runCommand } from './command.ts'
import type { CommandContext } from './command.ts'

const USAGE = 'auth-sidecar version'

export const run = (context: CommandContext): Promise<number> =>
  runCommand(context, USAGE, () => {
    refuseArguments(context.argv)
    context.stdout.write(`${version.version}\n`)
    return EXIT.ok
  })
