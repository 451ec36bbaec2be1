/** `doctor`: checks from inside the sidecar's container whether it has all it needs. */

import { loadConfig } from '../config/load.ts'
import { examine } from '../doctor/examine.ts'
import { describeFinding, type Finding } from '../doctor/finding.ts'
import { EXIT, parseConfigArguments, runCommandAsync, type CommandContext } from './command.ts'

const USAGE = 'auth-sidecar doctor [--config FILE] [--set path=value]…'

/** Exits 0 when nothing failed, 69 when something did. */
export const run = (context: CommandContext): Promise<number> =>
  runCommandAsync(context, USAGE, async () => {
    const loaded = loadConfig(parseConfigArguments(context))
    const { env, readFile, clock, stdout } = context
    const findings = await examine({ ...loaded, env, readFile, clock })
    for (const finding of findings) stdout.write(`${describeFinding(finding)}\n`)
    const count = (level: Finding['level']) =>
      findings.filter((finding) => finding.level === level).length
    stdout.write(`${count('ok')} ok, ${count('warn')} warned of, ${count('fail')} failed\n`)
    return count('fail') === 0 ? EXIT.ok : EXIT.dependency
  })
