/** `doctor`: checks, inside the sidecar's container, everything the sidecar needs. */

import { loadConfig } from '../config/load.ts'
import { examine } from '../doctor/doctor.ts'
import { describeFinding, LEVELS, type Finding } from '../doctor/finding.ts'
import { CONFIG_OPTIONS, readArguments } from './arguments.ts'
import { escapeJson } from './escape.ts'
import { EXIT, readConfigArguments, runCommand, type CommandContext } from './command.ts'

export const options = {
  ...CONFIG_OPTIONS,
  json: { type: 'boolean', description: 'Print the findings as JSON.' },
} as const

/** Exits 0 when nothing failed, 69 when something did. */
export const run = (context: CommandContext): Promise<number> =>
  runCommand(context, { name: 'doctor', options }, async () => {
    const loaded = loadConfig(readConfigArguments(context, options))
    const { argv, env, readFile, clock, interfaces, isColored = false, stdout } = context
    const findings = sort(
      await examine({ ...loaded, env, readFile, clock, interfaces: interfaces() }),
    )
    const count = (level: Finding['level']) =>
      findings.filter((finding) => finding.level === level).length
    const counts = { fail: count('fail'), warn: count('warn'), ok: count('ok') }
    if (readArguments(argv, options).json === true) {
      stdout.write(`${escapeJson({ counts, findings }, 2)}\n`)
    } else {
      for (const finding of findings) stdout.write(`${describeFinding(finding, isColored)}\n`)
      const warnings = `${counts.warn} ${counts.warn === 1 ? 'warning' : 'warnings'}`
      stdout.write(`${counts.ok} ok, ${warnings}, ${counts.fail} failed\n`)
    }
    return counts.fail === 0 ? EXIT.ok : EXIT.dependency
  })

/** Failures first; findings of one level keep their order. */
const sort = (findings: readonly Finding[]): readonly Finding[] =>
  findings.toSorted((one, other) => LEVELS.indexOf(one.level) - LEVELS.indexOf(other.level))
