/** `npm run demo:openclaw`: the real product, told line by line. */

import { parseArgs } from 'node:util'
import { runInside } from '../kit/namespace.ts'
import { prepare } from './prepare.ts'

const HELP = `Usage: npm run demo:openclaw [-- --once]

  --once    end after the story instead of waiting for Ctrl-C
`
const USAGE = 64
const STORY = new URL('demo-story.ts', import.meta.url).pathname

const main = async (): Promise<number> => {
  const options = { once: { type: 'boolean' }, help: { type: 'boolean' } } as const
  const { values } = parseArgs({ options, strict: false })
  if (values.help === true) {
    process.stdout.write(HELP)
    return 0
  }
  const unknown = Object.keys(values).filter((name) => !Object.hasOwn(options, name))
  if (unknown.length > 0) {
    process.stderr.write(HELP)
    return USAGE
  }
  const prepared = await prepare()
  if ('why' in prepared) {
    process.stderr.write(`The demonstration cannot be given here: ${prepared.why}\n`)
    return 1
  }
  return runInside(prepared.namespace, STORY, values.once === true ? ['--once'] : []).exited
}

process.exitCode = await main()
