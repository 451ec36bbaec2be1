/** The image of a commit for every platform: an OCI layout whose digest follows from the commit alone. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildah } from '../test/deploy/builder.ts'
import { IMAGE, PLATFORMS, type Platform, type Source } from './product.ts'

/** Other base images than the Dockerfile's, for one platform. */
type Bases = { readonly BUILD_IMAGE: string; readonly RUNTIME_IMAGE: string }

export type Recipe = {
  readonly source: Source
  readonly basesOf?: (platform: Platform) => Bases
  /** What else `buildah build` is told. */
  readonly builderArguments?: readonly string[]
}

/**
 * Writes the layout to a directory, and returns the digest of its index. Meanwhile `look` gets the root
 * directory of each platform's image.
 */
export const buildLayout = (
  recipe: Recipe,
  layout: string,
  look: (roots: readonly string[]) => void,
): string => {
  const list = `localhost/${IMAGE}:release`
  const names = PLATFORMS.map((platform) => {
    const name = `localhost/${IMAGE}:${platform.replace('/', '-')}`
    buildah(...buildArguments(recipe, platform, name))
    return name
  })
  const containers = names.map((name) => buildah('from', '--pull-never', name).trim())
  look(containers.map((each) => buildah('mount', each).trim()))
  buildah('rm', ...containers)
  buildah('manifest', 'create', list, ...names)
  buildah('manifest', 'push', '--all', '--format=oci', list, `oci:${layout}`)
  buildah('manifest', 'rm', list)
  buildah('rmi', ...names)
  const index = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as {
    readonly manifests: readonly { readonly digest: string }[]
  }
  const [found] = index.manifests
  if (found === undefined) throw new Error('buildah pushed no index')
  return found.digest
}

const buildArguments = (
  { source, basesOf, builderArguments = [] }: Recipe,
  platform: Platform,
  name: string,
): readonly string[] => {
  const { directory, revision, version, time } = source
  const values = {
    // Older versions of buildah leave it empty.
    BUILDPLATFORM: `linux/${process.arch === 'x64' ? 'amd64' : process.arch}`,
    VERSION: version,
    REVISION: revision,
    ...basesOf?.(platform),
  }
  return [
    'build',
    '--isolation=chroot',
    '--no-cache',
    '--format=oci',
    `--timestamp=${time}`,
    // Else a label names the version of buildah.
    '--identity-label=false',
    `--platform=${platform}`,
    `--file=${join(directory, 'Dockerfile.sidecar')}`,
    `--tag=${name}`,
    ...Object.entries(values).map(([key, value]) => `--build-arg=${key}=${value}`),
    ...builderArguments,
    directory,
  ]
}
