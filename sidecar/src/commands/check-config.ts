/** `check-config`: checks a configuration and prints every problem. */

import { describeEnding, judgeCertificates, problemsOf } from '../config/certificates.ts'
import { checkFiles } from '../config/files.ts'
import { loadConfig } from '../config/load.ts'
import { ConfigError } from '../config/config-error.ts'
import { CONFIG_OPTIONS } from './arguments.ts'
import { EXIT, readConfigArguments, runCommand } from './command.ts'
import type { CommandContext } from './command.ts'

export const options = CONFIG_OPTIONS

/** Exits 0 with one line, or 78 with one entry for each problem. */
export const run = (context: CommandContext): Promise<number> =>
  runCommand(context, { name: 'check-config', options }, () => {
    const loaded = loadConfig(readConfigArguments(context))
    for (const warning of loaded.warnings) context.stderr.write(`Warning: ${warning}\n`)
    const certificates = judgeCertificates(loaded.config, context.readFile, context.clock.now())
    const problems = [
      ...checkFiles(loaded.config, loaded.explicitPaths, context.readFile),
      ...problemsOf(certificates),
    ]
    if (problems.length > 0) throw new ConfigError(problems)
    for (const judged of certificates) {
      if (judged.isEndingSoon) context.stderr.write(`Warning: ${describeEnding(judged)}\n`)
    }
    const { enabled, allowedIdentities } = loaded.config.k8sTrust
    const count = allowedIdentities.length
    const identities = `${count} ${count === 1 ? 'identity' : 'identities'} allowed`
    context.stdout.write(
      `OK: ${enabled ? identities : 'trust is disabled, no worker is admitted'}\n`,
    )
    return EXIT.ok
  })
