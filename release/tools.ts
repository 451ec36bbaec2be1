/** The programs that check and pin a release: Go modules of one version each, built once. */

import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { findTool, mustRun } from '../test/deploy/tools.ts'

/** The Go checksum database vouches for each version: `go install` refuses another content. */
export const GO_TOOLS = {
  actionlint: 'github.com/rhysd/actionlint/cmd/actionlint@v1.7.12',
  cosign: 'github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3',
  crane: 'github.com/google/go-containerregistry/cmd/crane@v0.22.1',
  helm: 'helm.sh/helm/v4/cmd/helm@v4.3.1',
  kind: 'sigs.k8s.io/kind@v0.33.0',
} as const

const ROOT = join(import.meta.dirname, '..')
/** Cosign takes seven minutes of CPU. */
const BUILD_MS_MAX = 60 * 60_000

/** The path of a tool, built if need be. `RELEASE_TOOLS_DIR` says where they are kept. */
export const buildGoTool = async (name: keyof typeof GO_TOOLS): Promise<string> => {
  const cache = process.env['RELEASE_TOOLS_DIR'] ?? join(ROOT, 'node_modules/.cache/release-tools')
  const directory = join(cache, GO_TOOLS[name].replaceAll('/', '_'))
  const program = join(directory, name)
  if (existsSync(program)) return program
  const go = findTool('go')
  if ('why' in go) throw new Error(`${name} cannot be built: ${go.why}`)
  process.stdout.write(`building ${GO_TOOLS[name]}, once …\n`)
  mkdirSync(directory, { recursive: true })
  const args = ['install', '-trimpath', '-ldflags=-s -w', GO_TOOLS[name]]
  // A caller's own workspace must not change what is built.
  const env = { GOBIN: directory, GOWORK: 'off', CGO_ENABLED: '0' }
  await mustRun({ path: go.path, args, env }, BUILD_MS_MAX)
  return program
}
