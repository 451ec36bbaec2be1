/** The commands: what each does, how it exits, and where its code is. */

import type { Options } from './arguments.ts'
import type { CommandContext } from './command.ts'

type CommandModule = {
  readonly options: Options
  readonly run: (context: CommandContext) => number | undefined | Promise<number | undefined>
}

export type Command = {
  /** As a sentence that begins with the command's name. */
  readonly summary: string
  /** Exit codes besides 0 and 64, with what they mean. */
  readonly exits: Readonly<Record<number, string>>
  /**
   * Each command loads only what it needs: `drain` and `doctor` share the container's memory with
   * `serve`.
   */
  readonly load: () => Promise<CommandModule>
}

const INVALID = { 78: 'the configuration is not valid' }
const UNWRITTEN = { 74: 'the output could not be written' }
const START = {
  69: 'a port is taken',
  70: 'a bug',
  77: 'permission denied',
  78: 'the configuration is not valid',
}

export const COMMANDS: Readonly<Record<string, Command>> = {
  serve: {
    summary: 'runs the sidecar until SIGTERM, SIGINT or SIGQUIT, then drains',
    exits: START,
    load: () => import('./serve.ts'),
  },
  connect: {
    summary: "runs in a worker's pod, and shows the sidecar the pod's token for its workers",
    exits: { ...START, 69: 'a port is taken, or nobody answers --check' },
    load: () => import('./connect.ts'),
  },
  drain: {
    summary: 'sends the workers of the running sidecar away, and waits until they are gone',
    exits: {
      69: 'no sidecar said so in time',
      ...UNWRITTEN,
      78: 'the admin port or the own token is not known',
    },
    load: () => import('./drain.ts'),
  },
  status: {
    summary: 'shows the streams, refusals and readiness of the running sidecar',
    exits: { 69: 'no sidecar shows its status', ...UNWRITTEN, 78: 'the admin port is not known' },
    load: () => import('./status.ts'),
  },
  doctor: {
    summary: 'checks everything the running sidecar needs, and says how to fix it',
    exits: { 69: 'something failed', ...UNWRITTEN, ...INVALID },
    load: () => import('./doctor.ts'),
  },
  'check-config': {
    summary: 'checks a configuration and its files, and lists every error',
    exits: { ...UNWRITTEN, ...INVALID },
    load: () => import('./check-config.ts'),
  },
  'print-config': {
    summary: 'prints the configuration as the sidecar reads it, with secrets masked',
    exits: { ...UNWRITTEN, ...INVALID },
    load: () => import('./print-config.ts'),
  },
  schema: {
    summary: 'prints the JSON Schema of the configuration',
    exits: UNWRITTEN,
    load: () => import('./schema.ts'),
  },
  version: {
    summary: 'prints the version',
    exits: UNWRITTEN,
    load: () => import('./version.ts'),
  },
}
