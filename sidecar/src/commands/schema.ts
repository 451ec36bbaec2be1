/** `schema`: prints the JSON Schema of the configuration file. */

import { jsonSchema } from '../config/schema.ts'
import { EXIT, refuseArguments, runCommand } from './command.ts'
import type { CommandContext } from './command.ts'

const USAGE = 'auth-sidecar schema'

export const run = (context: CommandContext): Promise<number> =>
  runCommand(context, USAGE, () => {
    refuseArguments(context.argv)
    context.stdout.write(`${JSON.stringify(jsonSchema(), null, 2)}\n`)
    return EXIT.ok
  })
