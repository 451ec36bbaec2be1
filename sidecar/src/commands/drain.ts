/** `drain`: asks the running sidecar to disconnect its workers, and waits until they are gone. */

import { messageOf } from '../lib/errors.ts'
import { randomBytes } from 'node:crypto'
import { readProblem } from '../config/files.ts'
import type { CallConfig } from '../config/call-config.ts'
import { ConfigError } from '../config/config-error.ts'
import { callAdmin, type AdminAnswer } from '../edge/admin-call.ts'
import { proveDrain, PROOF_HEADER } from '../edge/drain-proof.ts'
import { locateApiServer } from '../kube/in-cluster.ts'
import type { Drained } from '../admissions/registry.ts'
import { findSidecar } from './admin-origin.ts'
import { CONFIG_OPTIONS } from './arguments.ts'
import { EXIT, runCommand, type CommandContext } from './command.ts'

export const options = CONFIG_OPTIONS

/** How long a drain may take beyond its window, in milliseconds: the last streams' grace and spare. */
const SPARE_MS = 10_000

/** Exits 0 when no stream is left, 69 when the sidecar did not confirm that in time. */
export const run = (context: CommandContext): Promise<number> =>
  runCommand(context, { name: 'drain', options }, async () => {
    const { config, origin } = findSidecar(context, options)
    const deadlineMs = config.drain.window + SPARE_MS
    const { clock, stdout, stderr } = context
    const nonce = randomBytes(16).toString('base64url')
    const proof = proveDrain(readOwnToken(config, context), { nowMs: clock.now(), nonce })
    const headers = { [PROOF_HEADER]: proof }
    try {
      const call = { origin, method: 'POST', path: '/drain', headers, deadlineMs, clock } as const
      const { streams } = readOutcome(await callAdmin(call))
      stdout.write(`drained: ${streams} ${streams === 1 ? 'stream' : 'streams'} closed\n`)
      return EXIT.ok
    } catch (error) {
      const reason = messageOf(error)
      stderr.write(`Not drained: ${origin}: ${reason}\n`)
      return EXIT.dependency
    }
  })

function readOwnToken({ kubernetes }: CallConfig, { env, readFile }: CommandContext): string {
  const path = 'kubernetes.tokenFile'
  const hint = "Run this in the sidecar's container, with its configuration."
  let tokenFile: string | undefined
  try {
    ;({ tokenFile } = locateApiServer(kubernetes, env))
    return readFile(tokenFile).trim()
  } catch (error) {
    const reason = tokenFile === undefined ? String(error) : readProblem(error)
    throw new ConfigError([
      { path, ...(tokenFile === undefined ? {} : { where: tokenFile }), reason, hint },
    ])
  }
}

function readOutcome({ status, text }: AdminAnswer): Drained {
  if (status !== 200) throw new Error(`it answered ${status}: ${text.slice(0, 200).trim()}`)
  const outcome = parse(text)
  if (outcome === undefined) throw new Error('the server there is not the sidecar')
  return outcome
}

function parse(text: string): Drained | undefined {
  try {
    const { streams } = JSON.parse(text) as Record<string, unknown>
    return typeof streams === 'number' ? { streams } : undefined
  } catch {
    return undefined
  }
}
