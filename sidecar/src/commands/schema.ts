/** `schema`: prints the JSON Schema of the configuration file. */

import { jsonSchema } from '../config/schema.ts'
import { readArguments } from './arguments.ts'
import { EXIT, runCommand } from './command.ts'
import type { CommandContext } from './command.ts'

export const options = {}

export const run = (context: CommandContext): Promise<number> =>
  runCommand(context, { name: 'schema', options }, () => {
    readArguments(context.argv, options)
    context.stdout.write(`${JSON.stringify(jsonSchema(), null, 2)}\n`)
    return EXIT.ok
  })
