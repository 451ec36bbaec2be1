/** `doctor`: checks, inside the sidecar's container, everything the sidecar needs. */

import { loadConfig } from '../config/load.ts'
import { examine } from '../doctor/doctor.ts'
import { describeFinding, type Finding } from '../doctor/finding.ts'
import { CONFIG_OPTIONS } from './arguments.ts'
import { EXIT, readConfigArguments, runCommand, type CommandContext } from './command.ts'

export const options = CONFIG_OPTIONS

/** Exits 0 when nothing failed, 69 when something did. */
export const run = (context: CommandContext): Promise<number> =>
  runCommand(context, { name: 'doctor', options }, async () => {
    const loaded = loadConfig(readConfigArguments(context))
    const { env, readFile, clock, stdout, interfaces } = context
    const findings = await examine({
      ...loaded,
      env,
      readFile,
      clock,
      interfaces: interfaces(),
    })
    for (const finding of findings) stdout.write(`${describeFinding(finding)}\n`)
    const count = (level: Finding['level']) =>
      findings.filter((finding) => finding.level === level).length
    const warnings = `${count('warn')} ${count('warn') === 1 ? 'warning' : 'warnings'}`
    stdout.write(`${count('ok')} ok, ${warnings}, ${count('fail')} failed\n`)
    return count('fail') === 0 ? EXIT.ok : EXIT.dependency
  })
