/** `npm run fuzz`: random input against everything that reads what others wrote. */

import { randomInt } from 'node:crypto'
import { EXIT, USAGE, fuzz, readOptions } from './fuzz.ts'
import { TARGETS } from './targets.ts'

const uncaught: unknown[] = []
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error) => uncaught.push(error))
}

const options = readOptions(process.argv.slice(2))
if (options === undefined) {
  process.stdout.write(USAGE)
  process.exitCode = EXIT.usage
} else {
  process.exitCode = await fuzz(options, {
    targets: TARGETS,
    write: (text) => process.stdout.write(text),
    now: () => performance.now(),
    drawSeed: () => randomInt(2 ** 31),
    takeUncaught: () => uncaught.splice(0),
  })
}
