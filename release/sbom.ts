/** The bill of materials of the image: CycloneDX, of the lockfile and of what the base images bring. */

import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { IMAGE, REGISTRY, type Source } from './product.ts'

const TOOLS = join(import.meta.dirname, 'sbom')
const SPEC = '1.6'
/** The sidecar itself is one of the workspaces. */
const OWN_SCOPE = '@openclaw-k8s'

export type Component = {
  readonly type: string
  readonly group?: string
  readonly name: string
  readonly version?: string
  readonly purl?: string
  readonly 'bom-ref'?: string
}
export type Bom = {
  readonly metadata: { readonly component: Component }
  readonly components: readonly Component[]
  readonly dependencies: readonly {
    readonly ref: string
    readonly dependsOn?: readonly string[]
  }[]
}

/** The packages that the lockfile gives the sidecar to run with. */
export const listMaterials = (source: Source): Bom => {
  // What writes it is locked like everything else, and nothing of it runs when it is installed.
  const install = ['ci', '--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund']
  if (!existsSync(join(TOOLS, 'node_modules/.package-lock.json')))
    execFileSync('npm', install, { cwd: TOOLS, stdio: ['ignore', 'ignore', 'inherit'] })
  const program = join(TOOLS, 'node_modules/.bin/cyclonedx-npm')
  const args = [
    '--package-lock-only',
    '--omit=dev',
    '--workspace=sidecar',
    '--flatten-components',
    '--output-reproducible',
    `--spec-version=${SPEC}`,
    '--mc-type=application',
  ]
  const bom = execFileSync(program, args, { cwd: source.directory, encoding: 'utf8' })
  return JSON.parse(bom) as Bom
}

/** Without what the bundle leaves out: the licences in each platform's image name what it has. */
export const keepBundled = (bom: Bom, licences: readonly string[]): Bom => {
  const bundled = new Set(licences.flatMap(readBundled))
  const isAbsent = (component: Component) =>
    component.purl?.startsWith('pkg:npm/') === true &&
    component.group !== OWN_SCOPE &&
    !bundled.has(fullName(component))
  const gone = new Set(bom.components.filter(isAbsent).map((each) => each['bom-ref']))
  return {
    ...bom,
    components: bom.components.filter((each) => !isAbsent(each)),
    dependencies: bom.dependencies
      .filter(({ ref }) => !gone.has(ref))
      .map(({ ref, dependsOn = [] }) => ({
        ref,
        dependsOn: dependsOn.filter((each) => !gone.has(each)),
      })),
  }
}

const fullName = ({ group, name, version }: Component): string =>
  [group === undefined ? name : `${group}/${name}`, version].join('@')

/** Each package whose licence is in the image, as name and version. */
const readBundled = (licences: string): readonly string[] =>
  [...licences.matchAll(/(?:^|-{80}\n\n)(\S+) (\S+) \([^\n]*\)\n/g)].map(
    ([, name, version]) => `${name}@${version}`,
  )

/** With what the base images bring: Node.js, and Debian's packages where distroless lists them. */
export const addBase = (bom: Bom, roots: readonly string[]): Bom => {
  const added = new Map<string, Component>()
  for (const component of roots.flatMap((root) => [readNode(root), ...listDebian(root)]))
    added.set(component.purl ?? '', component)
  const { component } = bom.metadata
  // A package of this name in npm would be somebody else's.
  const purl = `pkg:oci/${IMAGE}?repository_url=${REGISTRY}/${IMAGE}&tag=${component.version}`
  return {
    ...bom,
    metadata: {
      ...bom.metadata,
      component: { ...component, type: 'container', name: IMAGE, purl },
    },
    components: [...bom.components, ...added.values()],
  }
}

/** Read from the program, since it can be of another platform than this one. */
const readNode = (root: string): Component => {
  const program = readFileSync(join(root, 'nodejs/bin/node'))
  const [, version] = /\/release\/v([\d.]+)\/node-v/.exec(program.toString('latin1')) ?? []
  if (version === undefined) throw new Error(`the Node.js of ${root} does not say its version`)
  return { type: 'platform', name: 'node', version, purl: `pkg:generic/node@${version}` }
}

const STATUS = 'var/lib/dpkg/status.d'

const listDebian = (root: string): readonly Component[] => {
  const directory = join(root, STATUS)
  if (!existsSync(directory)) return []
  return readdirSync(directory)
    .filter((name) => !name.endsWith('.md5sums'))
    .toSorted()
    .map((name) => readPackage(readFileSync(join(directory, name), 'utf8')))
}

/** A paragraph of dpkg's status file. */
export const readPackage = (paragraph: string): Component => {
  const [name, version, architecture] = ['Package', 'Version', 'Architecture'].map((field) => {
    const [, value] = new RegExp(`^${field}: (.+)$`, 'm').exec(paragraph) ?? []
    if (value === undefined) throw new Error(`a package of the base image has no ${field}`)
    return value
  })
  const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version ?? '')}?arch=${architecture}`
  return { type: 'library', name: name ?? '', version: version ?? '', purl }
}

/** What the bill lacks: each package whose licence lies in the image, Node.js, versions and names. */
export const findGaps = (bom: Bom, licences: string): readonly string[] => {
  const packages = readBundled(licences)
  const listed = bom.components.map(fullName)
  const absent = packages.filter((each) => !listed.includes(each))
  return [
    ...(packages.length === 0 ? ['the image has no licences of packages'] : []),
    ...absent.map((each) => `${each} is in the image, and not in the bill`),
    ...(bom.components.some(({ purl = '' }) => purl.startsWith('pkg:generic/node@'))
      ? []
      : ['the bill has no Node.js']),
    ...bom.components
      .filter(({ version, purl }) => version === undefined || purl === undefined)
      .map(({ name }) => `${name} has no version or no purl`),
  ]
}

type Library = {
  readonly Validation: {
    readonly JsonStrictValidator: new (version: string) => {
      readonly validate: (text: string) => Promise<unknown>
    }
  }
}

/** Rejects with what the schema of CycloneDX objects to. */
export const validateBom = async (text: string): Promise<void> => {
  const load = createRequire(join(TOOLS, 'package.json'))
  const { Validation } = load('@cyclonedx/cyclonedx-library') as Library
  const objections = await new Validation.JsonStrictValidator(SPEC).validate(text)
  if (objections !== null) throw new Error(`the bill is invalid: ${JSON.stringify(objections)}`)
}
