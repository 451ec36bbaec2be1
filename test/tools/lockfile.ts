/** The packages that the lockfile installs, and those of them that the sidecar runs with. */

import { readFileSync } from 'node:fs'

type Locked = {
  readonly version?: string
  readonly license?: string
  readonly link?: boolean
  readonly resolved?: string
  readonly hasInstallScript?: boolean
  readonly dependencies?: Readonly<Record<string, string>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
}
export type Package = {
  readonly name: string
  readonly version: string
  /** An SPDX expression; empty where the package names none. */
  readonly licence: string
  readonly hasInstallScript: boolean
  /** Whether the sidecar runs with it, as opposed to being built, tested or demonstrated with it. */
  readonly isProduction: boolean
}
type Lockfile = { readonly packages: Readonly<Record<string, Locked>> }

const FILE = new URL('../../package-lock.json', import.meta.url)
const SIDECAR = 'sidecar'
const MODULES = 'node_modules/'

export const readLockfile = (): Lockfile => JSON.parse(readFileSync(FILE, 'utf8')) as Lockfile

/** Every foreign package, sorted by name, with its copies of several versions. */
export const listPackages = ({ packages }: Lockfile): readonly Package[] => {
  const production = findReachable(packages)
  return Object.entries(packages)
    .filter(([path, { link }]) => path.includes(MODULES) && link !== true)
    .map(([path, { version = '', license = '', hasInstallScript = false }]) => ({
      name: path.slice(path.lastIndexOf(MODULES) + MODULES.length),
      version,
      licence: license.replace(/^\(([^()]*)\)$/, '$1'),
      hasInstallScript,
      isProduction: production.has(path),
    }))
    .toSorted((one, other) =>
      `${one.name}@${one.version}` < `${other.name}@${other.version}` ? -1 : 1,
    )
}

/** The paths that Node finds from the sidecar's dependencies on. */
const findReachable = (packages: Lockfile['packages']): ReadonlySet<string> => {
  const found = new Set<string>()
  const waiting = [SIDECAR]
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const { dependencies = {}, optionalDependencies = {} } = packages[path] ?? {}
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      const at = resolve(packages, path, name)
      if (found.has(at)) continue
      found.add(at)
      waiting.push(at)
    }
  }
  return found
}

const resolve = (packages: Lockfile['packages'], from: string, name: string): string => {
  for (let directory = from; ; directory = parentOf(directory)) {
    const path = `${directory === '' ? '' : `${directory}/`}${MODULES}${name}`
    if (packages[path] !== undefined) return path
    if (directory === '') throw new Error(`the lockfile has no ${name} for ${from}`)
  }
}

/** The next directory outwards that can have modules. */
const parentOf = (directory: string): string =>
  directory.slice(0, Math.max(directory.lastIndexOf(`/${MODULES}`), 0))
