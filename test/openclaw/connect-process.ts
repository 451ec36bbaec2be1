/** `auth-sidecar connect` as it ships: a process in a worker's pod, with a token file that is swapped. */

import assert from 'node:assert/strict'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { waitForProcess } from '../kit/wait.ts'
import { runProcess, startProcess } from './processes.ts'

export type ConnectOptions = {
  readonly directory: string
  /** The sidecar, at the pod's address. */
  readonly gatewayUrl: string
  readonly listen: { readonly host: string; readonly port: number }
  readonly token: string
}

const MAIN = join(import.meta.dirname, '../../sidecar/src/main.ts')
const READY_LIMIT_MS = 20_000
const CHECK_LIMIT_MS = 10_000

export const startConnect = async ({ directory, gatewayUrl, listen, token }: ConnectOptions) => {
  await mkdir(directory, { recursive: true })
  const tokenFile = join(directory, 'token')
  // As the kubelet does: there is always a whole token under the name.
  const rotate = async (text: string): Promise<void> => {
    await writeFile(`${tokenFile}.next`, text)
    await rename(`${tokenFile}.next`, tokenFile)
  }
  await rotate(token)
  const where = ['--listen', `${listen.host}:${listen.port}`]
  const running = startProcess({
    name: 'connect',
    command: process.execPath,
    args: [MAIN, 'connect', '--gateway', gatewayUrl, ...where, '--token-file', tokenFile],
  })
  const check = {
    name: 'check',
    command: process.execPath,
    args: [MAIN, 'connect', '--check', ...where],
  }
  await waitForProcess('connect answers its probe', READY_LIMIT_MS, async () => {
    assert.ok(!running.hasExited(), `connect ended:\n${running.tell()}`)
    await runProcess(check, CHECK_LIMIT_MS)
    return true
  })
  return {
    rotate,
    hasExited: running.hasExited,
    tell: running.tell,
    stop: async (): Promise<void> => {
      if (!running.hasExited()) await running.end()
    },
  }
}
