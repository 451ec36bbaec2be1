/** Checks the workflows of .github with actionlint; the scripts in them with shellcheck, where it is installed. */

import { join } from 'node:path'
import { run } from '../test/deploy/tools.ts'
import { buildGoTool } from './tools.ts'

const { code, stdout, stderr } = await run({
  path: await buildGoTool('actionlint'),
  args: ['-no-color'],
  cwd: join(import.meta.dirname, '..'),
})
process.stdout.write(code === 0 ? 'the workflows are clean\n' : `${stdout}${stderr}`)
process.exitCode = code
