/** Where a command finds the admin port of the sidecar in its container. */

import { localOriginOf } from '../config/addresses.ts'
import { loadCallConfig, type CallConfig } from '../config/call-config.ts'
import { ConfigError } from '../config/config-error.ts'
import type { Options } from './arguments.ts'
import { readConfigArguments, type CommandContext } from './command.ts'

type RunningSidecar = { readonly config: CallConfig; readonly origin: string }

/**
 * The running sidecar is called although the configuration is broken now, with a word about that.
 * Throws a `ConfigError` where the configuration does not say the port.
 */
export function findSidecar(context: CommandContext, options: Options): RunningSidecar {
  const { config, error } = loadCallConfig(readConfigArguments(context, options))
  const origin = originOf(config)
  if (error !== undefined) {
    context.stderr.write(`${error}\nThe running sidecar is called all the same, at ${origin}.\n`)
  }
  return { config, origin }
}

function originOf({ listen }: CallConfig): string {
  const origin = localOriginOf(listen.admin)
  if (origin !== undefined) return origin
  const reason = 'The port is 0: the port of the running sidecar is unknown.'
  const hint = 'Set a fixed port, such as [::]:9464.'
  throw new ConfigError([{ path: 'listen.admin', reason, hint }])
}
