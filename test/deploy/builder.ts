/** `buildah` with its own storage, and the stand-ins for the base images that it builds from. */

import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeArm64RuntimeRoot, makeBuildRoot, makeRuntimeRoot } from './image-bases.ts'

export const BUILDAH = 'buildah'
const ROOT = join(import.meta.dirname, '../..')
const CACHES = join(ROOT, 'node_modules/.cache/image-suite')
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024

/** What the base images depend on: another Node or another recipe rebuilds them. */
const KEY = createHash('sha256')
  .update(readFileSync(new URL('image-bases.ts', import.meta.url)))
  .update(process.version)
  .digest('hex')
  .slice(0, 12)
const CACHE = join(CACHES, KEY)

export const buildah = (...args: readonly string[]): string => {
  // Its own storage: what a machine has in its own is neither needed nor touched.
  const storage = ['--root', join(CACHE, 'storage'), '--runroot', join(CACHE, 'run')]
  const { status, stdout, stderr } = spawnSync(
    BUILDAH,
    ['--storage-driver', 'vfs', ...storage, ...args],
    { encoding: 'utf8', maxBuffer: OUTPUT_BYTES_MAX },
  )
  if (status !== 0) throw new Error(`buildah ${args[0]} failed:\n${stdout}${stderr}`)
  return stdout
}

export type Base = { readonly name: string; readonly root: string }
type MakeRoot = (root: string) => void

/** Kept for the next run. */
const makeBase = (kind: string, make: MakeRoot, ...args: readonly string[]): Base => {
  if (!existsSync(CACHE)) rmSync(CACHES, { recursive: true, force: true })
  const root = join(CACHE, kind)
  const name = `localhost/${kind}-base:${KEY}`
  if (buildah('images', '--quiet', '--filter', `reference=${name}`) === '') {
    rmSync(root, { recursive: true, force: true })
    mkdirSync(root, { recursive: true })
    make(root)
    buildah('bud', ...args, '--tag', name, '--file', join(root, 'Containerfile'), root)
  }
  return { name, root }
}

export const makeBuildBase = (): Base => makeBase('build', makeBuildRoot)
export const makeRuntimeBase = (): Base => makeBase('runtime', makeRuntimeRoot)
export const makeArm64RuntimeBase = (): Base =>
  makeBase('runtime-arm64', makeArm64RuntimeRoot, '--platform=linux/arm64')

/** The registry as this machine's npm knows it: there while the build runs, in no layer of it. */
export const npmArguments = (temporary: string): readonly string[] => {
  const [registry = '', userconfig = '', cache = ''] = ['registry', 'userconfig', 'cache'].map(
    (name) => execFileSync('npm', ['config', 'get', name], { encoding: 'utf8', cwd: ROOT }).trim(),
  )
  const globalconfig = join(temporary, 'npmrc')
  writeFileSync(globalconfig, `registry=${registry}\n`)
  return [
    `--volume=${globalconfig}:/usr/local/etc/npmrc:ro`,
    ...(existsSync(userconfig) ? [`--secret=id=npmrc,src=${userconfig}`] : []),
    ...(existsSync(cache) ? [`--volume=${cache}:/root/.npm:rw`] : []),
  ]
}
