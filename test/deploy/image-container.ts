/** Runs what is in the image as a container runtime would: with its user, its environment and a read-only root. */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
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
  // Its parent's death would not end it: a process that changes its user no longer gets that signal.
  const end = () => {
    const first = child.exitCode === null ? firstOf(child.pid) : undefined
    if (first !== undefined) process.kill(first, 'SIGKILL')
  }
  const release = keepTrackOf(async () => end())
  const log: string[] = []
  const lines = createInterface({ input: child.stderr }).on('line', (line) => log.push(line))
  const stdout = text(child.stdout)
  const exited = once(child, 'close').then(async ([code]) => {
    await release()
    return { code: code as number | null, stdout: await stdout, stderr: log.join('\n') }
  })
  return {
    exited,
    /** The first line on stderr that has this in it; rejects when the command ends without one. */
    logged: async (part: string): Promise<string> => {
      const failed = exited.then(({ stderr }) => {
        throw new Error(`it ended without a word of ${part}:\n${stderr}`)
      })
      for (;;) {
        const line = log.find((each) => each.includes(part))
        if (line !== undefined) return line
        await Promise.race([once(lines, 'line'), failed])
      }
    },
    kill: async (): Promise<void> => {
      end()
      await exited
    },
    /** To process 1, as a kubelet sends it. */
    signal: (name: NodeJS.Signals) => {
      const first = firstOf(child.pid)
      assert.ok(first !== undefined, 'process 1 has ended')
      process.kill(first, name)
    },
  }
}

/** Process 1 as this machine numbers it, while it runs: 0 would mean the caller. */
const firstOf = (pid = 0): number | undefined => {
  const path = `/proc/${pid}/task/${pid}/children`
  const first = existsSync(path) ? Number(readFileSync(path, 'utf8').trim()) : 0
  return first > 0 ? first : undefined
}
