/** The part of a checkout that goes into the image: the bundle, with the environment of the image. */

import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export type Shipped = {
  /** What Node is to run. */
  readonly main: string
  readonly env: Readonly<Record<string, string>>
  readonly about: string
}

const NAME = 'auth-sidecar'

/** Bundles the sidecar of a checkout as its image does, or takes its sources if it has no bundle. */
export const ship = (checkout: string): Shipped => {
  const bundler = join(checkout, 'sidecar/bundle.ts')
  if (!existsSync(bundler)) {
    return { main: join(checkout, 'sidecar/src/main.ts'), env: {}, about: 'from its sources' }
  }
  const directory = join(checkout, 'node_modules/.cache/bench/bundle')
  execFileSync(process.execPath, [bundler, directory], { stdio: ['ignore', 'ignore', 'inherit'] })
  const dockerfile = join(checkout, 'Dockerfile.sidecar')
  const env = existsSync(dockerfile) ? environmentOf(readFileSync(dockerfile, 'utf8')) : {}
  const settings = Object.entries(env).map(([name, value]) => `${name}=${value}`)
  return {
    main: join(directory, NAME),
    env,
    about: ['the bundle of its image', ...settings].join(' '),
  }
}

/** The variables of the last stage of an image, except paths. */
const environmentOf = (dockerfile: string): Record<string, string> => {
  const stage = dockerfile.slice(dockerfile.lastIndexOf('\nFROM ')).replaceAll('\\\n', ' ')
  const lines = stage.match(/^ENV .*$/gm) ?? []
  const pairs = lines.flatMap((line) => [...line.matchAll(/(\w+)=(?:"([^"]*)"|(\S+))/g)])
  return Object.fromEntries(
    pairs
      .map(([, name = '', quoted, bare]) => [name, quoted ?? bare ?? ''] as const)
      .filter(([name]) => name !== 'PATH'),
  )
}
