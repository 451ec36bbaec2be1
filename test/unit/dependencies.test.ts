/** What comes from others: its licences, its scripts, its versions, and when a new one may come. */

import { readFileSync } from 'node:fs'
import { test } from 'tap'
import { fillLicences, findLicenceObjection } from '../tools/licences.ts'
import { listPackages, readLockfile, type Package } from '../tools/lockfile.ts'

type Manifest = {
  readonly dependencies?: Readonly<Record<string, string>>
  readonly devDependencies?: Readonly<Record<string, string>>
}

const read = (path: string): string =>
  readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
const readManifest = (path: string) => JSON.parse(read(`${path}package.json`)) as Manifest

const PACKAGES = listPackages(readLockfile())

const packageOf = (changes: Partial<Package>): Package => ({
  name: 'some',
  version: '1.0.0',
  licence: 'MIT',
  hasInstallScript: false,
  isProduction: true,
  ...changes,
})

test('every package that is installed has an allowed licence', async (t) => {
  t.strictSame(
    PACKAGES.flatMap((each) => findLicenceObjection(each) ?? []),
    [],
  )
  t.ok(PACKAGES.length > 100)
})

test('a licence that is not listed is refused, and one of tools is refused in the image', async (t) => {
  const objectionTo = (changes: Partial<Package>) => findLicenceObjection(packageOf(changes))
  for (const licence of [
    'GPL-3.0-only',
    'MIT AND GPL-2.0-only',
    'UNLICENSED',
    'SEE LICENSE IN X',
  ]) {
    const told = `some 1.0.0 has the licence ${licence}, which is not allowed`
    t.equal(objectionTo({ licence }), `${told} in the image`)
    t.equal(objectionTo({ licence, isProduction: false }), `${told} for tools`)
  }
  t.match(objectionTo({ licence: '' }), 'some 1.0.0 has no licence,')
  t.match(objectionTo({ licence: 'CC-BY-3.0' }), /not allowed in the image$/)
  t.equal(objectionTo({ licence: 'CC-BY-3.0', isProduction: false }), undefined)
  t.equal(objectionTo({ licence: 'GPL-2.0-only OR MIT' }), undefined, 'there is a choice')
})

test('a choice inside an expression is none of the whole', async (t) => {
  const lock = (license: string) => ({
    packages: { 'node_modules/some': { version: '1.0.0', license } },
  })
  for (const expression of [
    'GPL-3.0-only AND (X11 OR MIT OR Zlib)',
    '(X11 OR MIT OR Zlib) AND (GPL-2.0-only OR GPL-3.0-only)',
  ]) {
    const [found] = listPackages(lock(expression))
    t.match(found && findLicenceObjection(found), expression)
  }
  const [choice] = listPackages(lock('(GPL-2.0-only OR MIT)'))
  t.equal(choice && findLicenceObjection(choice), undefined, 'parentheses around all of it')
})

test('a licence that somebody has read is that of one version', async (t) => {
  const unnamed = PACKAGES.filter(({ licence }) => licence === '')
  t.ok(unnamed.length > 0)
  for (const found of unnamed) {
    t.equal(findLicenceObjection(found), undefined, found.name)
    t.match(
      findLicenceObjection({ ...found, version: '99.0.0' }),
      `${found.name} 99.0.0 has no lic`,
    )
  }
})

test('the table of licences is what the lockfile says', async (t) => {
  // `node test/tools/licences.ts` writes it again.
  t.equal(read('docs/licences.md'), fillLicences(read('docs/licences.md'), PACKAGES))
})

test('what the sidecar runs with is found in the lockfile as Node finds it', async (t) => {
  const at = (path: string, dependencies: readonly string[], version = '1.0.0') => [
    path,
    {
      version,
      license: 'MIT',
      dependencies: Object.fromEntries(dependencies.map((each) => [each, '*'])),
    },
  ]
  const packages = Object.fromEntries([
    at('', ['tool']),
    at('sidecar', ['near', 'far']),
    at('sidecar/node_modules/near', ['deep']),
    at('sidecar/node_modules/near/node_modules/deep', ['far'], '2.0.0'),
    at('node_modules/near', ['tool'], '3.0.0'),
    at('node_modules/deep', [], '1.0.0'),
    at('node_modules/far', []),
    at('node_modules/tool', []),
    ['node_modules/@openclaw-k8s/auth-sidecar', { link: true }],
  ])
  const listed = listPackages({ packages })
  t.strictSame(
    listed.filter(({ isProduction }) => isProduction).map(({ name, version }) => name + version),
    ['deep2.0.0', 'far1.0.0', 'near1.0.0'],
  )
  t.equal(listed.length, 6)
})

test('no package that the sidecar runs with has an install script, and the image runs none', async (t) => {
  const withScript = PACKAGES.filter(({ hasInstallScript }) => hasInstallScript)
  t.strictSame(
    withScript.filter(({ isProduction }) => isProduction),
    [],
  )
  t.strictSame(
    withScript.map(({ name }) => name),
    ['esbuild', 'node'],
    'and of the tools, these two have one',
  )
  const installs = read('Dockerfile.sidecar').match(/npm (?:ci|install|i)\b.*/g) ?? []
  t.ok(installs.length > 0)
  for (const install of installs) t.match(install, '--ignore-scripts')
})

test('every dependency has one exact version', async (t) => {
  const wanted = new Map<string, string>()
  for (const path of ['', 'sidecar/', 'gateway-stub/']) {
    const { dependencies, devDependencies } = readManifest(path)
    for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies })) {
      t.match(version, /^\d+\.\d+\.\d+$/, `${path}${name}`)
      t.equal(wanted.get(name) ?? version, version, `${name} is the same everywhere`)
      wanted.set(name, version)
    }
  }
})

test('the update bot waits a week for every kind of update but a security fix', async (t) => {
  const config = JSON.parse(read('.github/renovate.json')) as Readonly<Record<string, unknown>>
  t.equal(config['minimumReleaseAge'], '7 days')
  t.equal(config['internalChecksFilter'], 'strict')
  t.notMatch(JSON.stringify(config['packageRules']), 'minimumReleaseAge', 'no rule shortens it')
  t.match(config['vulnerabilityAlerts'], { minimumReleaseAge: null })
})
