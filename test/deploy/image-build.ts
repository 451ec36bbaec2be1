/** Builds the image with `buildah` from stand-ins for its base images, and opens it to be looked at. */

import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { keepTrackOf } from '../kit/leftovers.ts'
import { listFiles, makeBuildRoot, makeRuntimeRoot } from './image-bases.ts'

type ImageConfig = {
  readonly User: string
  readonly Env: readonly string[]
  readonly Entrypoint: readonly string[]
  readonly Cmd: readonly string[]
  readonly WorkingDir: string
  readonly Labels: Readonly<Record<string, string>>
  readonly ExposedPorts: Readonly<Record<string, unknown>>
  readonly Volumes?: Readonly<Record<string, unknown>>
}

export type Image = Awaited<ReturnType<typeof buildImage>>

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const CACHES = join(ROOT, 'node_modules/.cache/image-suite')
const NAME = 'localhost/openclaw-auth-sidecar:suite'
const BUILDAH = 'buildah'
const UNSHARE = 'unshare'
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024

/** Why no image can be built and run here, if so. */
export const whyNoImage = (): string | undefined => {
  const absent = [BUILDAH, UNSHARE, 'setpriv', 'mount', 'ldd', 'npm'].filter(
    (name) => spawnSync(name, ['--version']).error !== undefined,
  )
  if (absent.length > 0) return `${absent.join(', ')} not found`
  if (process.getuid?.() !== 0) return 'the image is built and run by root only'
  const { status } = spawnSync(UNSHARE, ['--mount', '--pid', '--fork', 'true'])
  return status === 0 ? undefined : 'no mount and process namespace may be made here'
}

/** Builds the checkout's image. Base images are kept for the next run; the image itself is not. */
export const buildImage = async () => {
  if (!existsSync(CACHE)) rmSync(CACHES, { recursive: true, force: true })
  const temporary = mkdtempSync(join(tmpdir(), 'image-suite-'))
  const runtime = makeBase('runtime', makeRuntimeRoot)
  const build = makeBase('build', makeBuildRoot)
  const bases = { RUNTIME_IMAGE: runtime.name, BUILD_IMAGE: build.name }
  buildah(
    'bud',
    '--isolation=chroot',
    '--pull-never',
    '--no-cache',
    // The other format has no health check.
    '--format=docker',
    `--file=${join(ROOT, 'Dockerfile.sidecar')}`,
    `--tag=${NAME}`,
    ...Object.entries(bases).map(([name, base]) => `--build-arg=${name}=${base}`),
    ...npmArguments(temporary),
    ROOT,
  )
  const container = buildah('from', '--pull-never', NAME).trim()
  const close = keepTrackOf(async () => {
    buildah('rm', container)
    buildah('rmi', '--force', NAME)
    rmSync(temporary, { recursive: true })
  })
  const root = buildah('mount', container).trim()
  const inherited = new Set(listFiles(runtime.root))
  const inspected = JSON.parse(buildah('inspect', '--type', 'image', NAME)) as {
    readonly OCIv1: { readonly config: ImageConfig; readonly os: string }
    readonly Docker: { readonly config: { readonly Healthcheck?: unknown } }
  }
  return {
    /** Where its files lie on this machine. */
    root,
    config: inspected.OCIv1.config,
    healthcheck: inspected.Docker.config.Healthcheck,
    /** Files it has beyond those of its base. */
    files: listFiles(root).filter((path) => !inherited.has(path)),
    baseName: runtime.name,
    temporary,
    /** As an archive that a container runtime imports, under this name. */
    save: (file: string, name: string) => buildah('push', NAME, `oci-archive:${file}:${name}`),
    close,
  }
}

/** What the base images depend on: another Node or another recipe rebuilds them. */
const KEY = createHash('sha256')
  .update(readFileSync(new URL('image-bases.ts', import.meta.url)))
  .update(process.version)
  .digest('hex')
  .slice(0, 12)
const CACHE = join(CACHES, KEY)

const makeBase = (kind: 'build' | 'runtime', make: (root: string) => void) => {
  const root = join(CACHE, kind)
  const name = `localhost/${kind}-base:${KEY}`
  if (buildah('images', '--quiet', '--filter', `reference=${name}`) === '') {
    rmSync(root, { recursive: true, force: true })
    mkdirSync(root, { recursive: true })
    make(root)
    buildah('bud', '--tag', name, '--file', join(root, 'Containerfile'), root)
  }
  return { name, root }
}

/** The registry as this machine's npm knows it: there while the build runs, in no layer of it. */
const npmArguments = (temporary: string): readonly string[] => {
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

const buildah = (...args: readonly string[]): string => {
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
