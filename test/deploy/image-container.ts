/** Runs what is in the image as a container runtime would: its user and environment, a root that cannot be written to. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { keepTrackOf } from '../kit/leftovers.ts'
import type { Image } from './image-build.ts'

const UNSHARE = 'unshare'
const MOUNTS = ['etc/auth-sidecar', 'proc', 'dev']
/** The mounts end with their namespace. They need the machine's own tools, so they come first. */
const ENTER = `
  set -e
  root=$1 config=$2 directory=$3 user=$4 group=$5
  shift 5
  mount --bind "$root" "$root"
  mount --bind "$config" "$root/etc/auth-sidecar"
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount -o remount,bind,ro "$root/etc/auth-sidecar"
  mount -o remount,bind,ro "$root"
  exec setpriv --clear-groups --no-new-privs \\
    unshare --root="$root" --wd="$directory" --setgid="$group" --setuid="$user" "$@"
`

/** The command becomes process 1; `config` is the directory that is mounted at /etc/auth-sidecar. */
export const runContainer = (image: Image, config: string, command: readonly string[]) => {
  const { Env, User, WorkingDir } = image.config
  for (const path of MOUNTS) mkdirSync(join(image.root, path), { recursive: true })
  const inside = [image.root, config, WorkingDir, ...User.split(':'), ...command]
  const child = spawn(UNSHARE, ['--mount', '--pid', '--fork', 'sh', '-c', ENTER, 'sh', ...inside], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: Object.fromEntries(Env.map((each) => each.split(/=(.*)/s).slice(0, 2))),
  })
  const log: string[] = []
  const lines = createInterface({ input: child.stderr }).on('line', (line) => log.push(line))
  const stdout = text(child.stdout)
  const exited = once(child, 'close').then(async ([code]) => ({
    code: code as number | null,
    stdout: await stdout,
    stderr: log.join('\n'),
  }))
  const isOver = () => child.exitCode !== null || child.signalCode !== null
  /** To process 1, as a kubelet sends it; its whole namespace ends with it. */
  const signal = (name: NodeJS.Signals): void => {
    const first = onlyChildOf(child.pid)
    if (first !== undefined) process.kill(first, name)
  }
  return {
    exited,
    signal,
    /** The first line on stderr that has this in it; rejects when the command ends without one. */
    logged: async (part: string): Promise<string> => {
      for (;;) {
        const line = log.find((each) => each.includes(part))
        if (line !== undefined) return line
        if (isOver()) throw new Error(`it ended:\n${log.join('\n')}`)
        await Promise.race([once(lines, 'line'), exited])
      }
    },
    kill: keepTrackOf(async () => {
      // A process that changed its user is not killed with its parent.
      if (!isOver()) signal('SIGKILL')
      await exited
    }),
  }
}

const onlyChildOf = (pid: number | undefined): number | undefined => {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')
  return child === undefined || child === '' ? undefined : Number(child)
}
