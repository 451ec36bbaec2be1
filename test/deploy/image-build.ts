/** Builds the image with `buildah` from stand-ins for its base images, and opens it to be looked at. */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { extractCommit } from '../kit/commit-files.ts'
import { keepTrackOf } from '../kit/leftovers.ts'
import { BUILDAH, buildah, makeBuildBase, makeRuntimeBase, npmArguments } from './builder.ts'
import { listFiles } from './image-bases.ts'

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

const ROOT = join(import.meta.dirname, '../..')
const NAME = 'localhost/openclaw-auth-sidecar:suite'
const UNSHARE = 'unshare'

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

/**
 * Builds the checkout's image, or that of a commit. Base images are kept for the next run; the image
 * itself is not.
 */
export const buildImage = async (commit?: string) => {
  const temporary = mkdtempSync(join(tmpdir(), 'image-suite-'))
  const source = commit === undefined ? ROOT : join(temporary, 'source')
  if (commit !== undefined) extractCommit(commit, source)
  const runtime = makeRuntimeBase()
  const build = makeBuildBase()
  const bases = { RUNTIME_IMAGE: runtime.name, BUILD_IMAGE: build.name }
  buildah(
    'bud',
    '--isolation=chroot',
    '--pull-never',
    '--no-cache',
    // The other format has no health check.
    '--format=docker',
    `--file=${join(source, 'Dockerfile.sidecar')}`,
    `--tag=${NAME}`,
    ...Object.entries(bases).map(([name, base]) => `--build-arg=${name}=${base}`),
    ...npmArguments(temporary),
    source,
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
