/** Runs a command of the sidecar in this process, and keeps what it writes and how it ends. */

import { systemClock, type Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import type { CommandContext } from '@openclaw-k8s/auth-sidecar/commands/command.ts'
import { readFileBounded } from '@openclaw-k8s/auth-sidecar/config/files.ts'

export type RunOptions = {
  /** `path=value`, each as a separate `--set`. */
  readonly set?: readonly string[]
  readonly argv?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly clock?: Clock
  readonly isColored?: boolean
  /** The addresses of the machine it runs on; none but loopback unless said otherwise. */
  readonly addresses?: readonly string[]
}

type Outcome = {
  readonly exitCode: number | undefined
  readonly stdout: string
  readonly stderr: string
}

export const runCommand = async (
  command: (context: CommandContext) => Promise<number | undefined>,
  {
    set = [],
    argv = [],
    env = {},
    clock = systemClock,
    addresses = [],
    isColored = false,
  }: RunOptions,
): Promise<Outcome> => {
  const out: string[] = []
  const err: string[] = []
  const exitCode = await command({
    argv: [...argv, ...set.flatMap((each) => ['--set', each])],
    env,
    stdout: { write: (text) => out.push(text) },
    stderr: { write: (text) => err.push(text) },
    readFile: readFileBounded,
    clock,
    isColored,
    interfaces: () => ({ eth0: addresses.map((address) => ({ address })) }),
  })
  return { exitCode, stdout: out.join(''), stderr: err.join('') }
}
