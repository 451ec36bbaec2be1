/** `npm run fuzz`: random input against everything that reads what others wrote. */

import { randomInt } from 'node:crypto'
import { playConnections } from './connections.ts'
import { EXIT, USAGE, fuzz, readOptions, type FuzzOptions } from './fuzz.ts'
import { TARGETS } from './targets.ts'

const uncaught: unknown[] = []
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error) => uncaught.push(error))
}

const write = (text: string) => process.stdout.write(text)
const now = () => performance.now()
const drawSeed = () => randomInt(2 ** 31)

const run = async (options: FuzzOptions | undefined): Promise<number> => {
  if (options === undefined) {
    write(USAGE)
    return EXIT.usage
  }
  const { connections, seed = drawSeed() } = options
  if (connections === undefined) {
    const takeUncaught = () => uncaught.splice(0)
    return fuzz(options, { targets: TARGETS, write, now, drawSeed, takeUncaught })
  }
  const isOk = await playConnections({ connections, seed, write, now })
  write(isOk ? '1 passed, 0 failed, 0 skipped\n' : '0 passed, 1 failed, 0 skipped\n')
  return isOk ? EXIT.ok : EXIT.failed
}

const exitCode = await run(readOptions(process.argv.slice(2)))
// An input that was left behind must not keep the process.
process.stdout.write('', () => process.exit(exitCode))
