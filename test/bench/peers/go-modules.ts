/** Programs of other projects, built once from their Go modules and kept outside the checkout. */

import { existsSync, mkdirSync, mkdtempSync, renameSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fetchModule, findTool, run, type Found, type GoModule } from '../../deploy/tools.ts'

export type GoProgram = GoModule & {
  readonly name: string
  /** The package of the program, from the root of the module. */
  readonly package: string
}

/** Hundreds of packages; on a busy machine that takes a while. */
const BUILD_MS_MAX = 60 * 60_000
/** A caller's own workspace must not change what is built. */
const GO_ENV = { GOWORK: 'off', CGO_ENABLED: '0' }

/**
 * Where the program is, built if need be; `BENCH_TOOLS_DIR` says where it is kept. The build runs in the module
 * itself, with the versions of its own `go.sum`: `go install` would ask the proxy for a list of versions, which
 * not every proxy serves.
 */
export const buildProgram = async (program: GoProgram): Promise<Found> => {
  const { name, module } = program
  const cache = process.env['BENCH_TOOLS_DIR'] ?? join(homedir(), '.cache/openclaw-k8s/bench')
  const directory = join(cache, module.replaceAll('/', '_'))
  const path = join(directory, name)
  if (existsSync(path)) return { path }
  const go = findTool('go')
  if ('why' in go) return go
  process.stdout.write(`building ${module}, once …\n`)
  const sources = await fetchModule(program)
  if ('why' in sources) return sources
  mkdirSync(cache, { recursive: true })
  const unfinished = mkdtempSync(join(cache, 'unfinished-'))
  const args = ['build', '-mod=readonly', '-trimpath', '-ldflags=-s -w']
  const command = {
    path: go.path,
    args: [...args, '-o', join(unfinished, name), program.package],
    cwd: sources.path,
    env: GO_ENV,
  }
  const { code, stderr } = await run(command, BUILD_MS_MAX)
  if (code !== 0) return { why: `${module} could not be built: ${stderr.slice(-500)}` }
  // Never incomplete: an interrupted build leaves nothing under this name.
  if (!existsSync(directory)) renameSync(unfinished, directory)
  return { path }
}
