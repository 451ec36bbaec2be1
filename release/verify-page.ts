/** Runs the commands of docs/verify.md, with other names and another signer than those of the page. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../test/deploy/tools.ts'

const PAGE = join(import.meta.dirname, '../docs/verify.md')
const NAMES = '<!-- verify: names -->'
const VERIFY_MS_MAX = 10 * 60_000

/** The commands of the page in their order; `names` takes the place of the block that sets the names. */
export const readCommands = (page: string, names: string): string => {
  const blocks = [...page.matchAll(/(^<!-- [^\n]* -->\n)?^```sh\n(.*?)^```$/gms)]
  if (!blocks[0]?.[1]?.startsWith(NAMES)) throw new Error('the first block sets no names')
  return [names, ...blocks.slice(1).map(([, , commands = '']) => commands)].join('\n')
}

export const runPage = (names: string, cwd: string, env: Readonly<Record<string, string>>) => {
  const script = readCommands(readFileSync(PAGE, 'utf8'), names)
  const args = ['-euo', 'pipefail', '-c', script]
  return run({ path: 'bash', args, cwd, env }, VERIFY_MS_MAX)
}
