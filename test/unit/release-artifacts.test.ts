/** What a release is made of, what it refuses, and what it says of itself. */

import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test, type Test } from 'tap'
import { readCandidate } from '../../release/candidate.ts'
import { nameImage, packChart } from '../../release/chart.ts'
import { REPOSITORY, type Source } from '../../release/product.ts'
import { describeBuild } from '../../release/provenance.ts'
import { findRefusals, findSection, type Candidate } from '../../release/refusals.ts'
import {
  addBase,
  findGaps,
  keepBundled,
  readPackage,
  type Bom,
  type Component,
} from '../../release/sbom.ts'
import { extractSource } from '../../release/source.ts'
import { readCommands } from '../../release/verify-page.ts'
import { findVersions } from '../../release/versions.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string): string => readFileSync(`${ROOT}${path}`, 'utf8')
const DIGEST = `sha256:${'ab'.repeat(32)}`

const CHANGELOG = `\
# Changelog

## [Unreleased]

## [1.1.0] - 2027-01-02

### Added

- A thing, see [1.0.0].

## [1.0.0] - 2026-12-01

### Fixed

- Another.

[Unreleased]: https://example.org/unreleased
`
const GOOD: Candidate = {
  revision: 'cd'.repeat(20),
  version: '1.1.0',
  tags: ['v1.1.0'],
  isClean: true,
  versions: [
    ['package.json', '1.1.0'],
    ['Chart.yaml', '1.1.0'],
  ],
  changelog: CHANGELOG,
  unpinned: [],
}

test('the text of a release is the section of its version, and nothing beside it', async (t) => {
  t.equal(findSection(CHANGELOG, '1.1.0'), '### Added\n\n- A thing, see [1.0.0].')
  t.equal(findSection(CHANGELOG, '1.0.0'), '### Fixed\n\n- Another.')
  t.equal(findSection(CHANGELOG, 'Unreleased'), '')
  t.equal(findSection(CHANGELOG, '1.1'), undefined)
})

test('a release refuses what is not tagged, committed, of one version, described and pinned', async (t) => {
  t.strictSame(findRefusals(GOOD), [])
  const onGitHub = { ref: 'refs/tags/v1.1.0', sha: GOOD.revision }
  t.strictSame(findRefusals({ ...GOOD, ...onGitHub }), [])
  const each: readonly [Partial<Candidate>, RegExp][] = [
    [{ tags: ['v1.0.0'] }, /does not have the tag v1\.1\.0/],
    [{ isClean: false }, /not committed/],
    [{ versions: [['Chart.yaml', '1.0.0']] }, /Chart\.yaml has the version 1\.0\.0, not 1\.1\.0/],
    [{ ref: 'refs/tags/v2.0.0' }, /runs for the ref refs\/tags\/v2\.0\.0, not for refs\/tags\/v1/],
    [{ ref: 'refs/heads/main' }, /runs for the ref refs\/heads\/main/],
    [{ sha: 'ef'.repeat(20) }, /runs for the commit (?:ef)+, not for (?:cd)+/],
    [{ changelog: '# Changelog\n' }, /no section for 1\.1\.0/],
    [{ changelog: '## [1.1.0] - 2027-01-02\n' }, /no section for 1\.1\.0/],
    [{ unpinned: ['Dockerfile.sidecar: node:26'] }, /node:26 is not pinned: run `npm run pin`/],
  ]
  for (const [fault, expected] of each) {
    const refusals = findRefusals({ ...GOOD, ...fault })
    t.equal(refusals.length, 1, expected.source)
    t.match(refusals[0], expected)
  }
})

test('a version is semantic, and can be the tag of an image', async (t) => {
  const refusalsOf = (version: string) =>
    findRefusals({
      ...GOOD,
      version,
      tags: [`v${version}`],
      versions: [],
      changelog: CHANGELOG.replace('[1.1.0]', `[${version}]`),
    })
  for (const good of ['1.1.0', '10.20.30', '1.1.0-rc.1']) t.strictSame(refusalsOf(good), [], good)
  for (const bad of ['1.1', 'v1.1.0', '1.1.0+build.1', '1.1.0-rc 1', '1.1.0;id', ''])
    t.strictSame(refusalsOf(bad), [`The version ${bad} is not like 1.2.3 or 1.2.3-rc.1.`], bad)
})

test('everything that names the version of this commit names the same one', async (t) => {
  const { version, versions } = readCandidate({})
  t.strictSame(
    versions.filter(([, each]) => each !== version),
    [],
  )
  const places = versions.map(([place]) => place)
  for (const place of [
    'package-lock.json: sidecar/package.json',
    'gateway-stub/package.json',
    'Dockerfile.sidecar',
    'README.md',
    'docs/install.md',
    'docs/verify.md',
    'manifests/overlays/example/kustomization.yaml',
  ])
    t.ok(places.includes(place), place)
})

test('a text names the version in a command, a tag, an argument or a values file', async (t) => {
  const text = `\
ARG VERSION=1.0.0
VERSION=1.0.1
docker build -t openclaw-auth-sidecar:1.0.2 .
  image: { repository: openclaw-auth-sidecar, tag: 1.0.3-rc.1 }
    newTag: 1.0.4
Push openclaw-auth-sidecar:1.0.5.
image: { repository: ghcr.io/openclaw/openclaw, tag: 2026.9.6 }
Since 0.9.0.
`
  const named = ['1.0.0', '1.0.1', '1.0.2', '1.0.3-rc.1', '1.0.4', '1.0.5']
  t.strictSame(findVersions(text), named)
})

test('a release is of the commit that was checked, whatever is checked out meanwhile', async (t) => {
  const revision = execFileSync('git', ['rev-parse', 'HEAD~1'], { cwd: ROOT, encoding: 'utf8' })
  const directory = join(t.testdir(), 'source')
  const source = extractSource(revision.trim(), directory)
  t.equal(source.revision, revision.trim())
  const written = execFileSync('git', ['log', '-1', '--format=%ct', revision.trim()], { cwd: ROOT })
  t.equal(source.time, Number(written))
  t.equal(statSync(join(directory, 'package.json')).mtimeMs, source.time * 1000)
})

test('the files of a commit are the same, however git is set up', async (t) => {
  const attributes = t.testdir({ attributes: '*.md export-ignore\n* text eol=crlf\n' })
  const settings = {
    'core.autocrlf': 'true',
    'core.eol': 'crlf',
    'core.attributesFile': join(attributes, 'attributes'),
    'tar.umask': '0077',
  }
  const env = Object.entries(settings).flatMap(([key, value], at) => [
    [`GIT_CONFIG_KEY_${at}`, key],
    [`GIT_CONFIG_VALUE_${at}`, value],
  ])
  const script = `
    import { extractCommit } from '${ROOT}test/kit/commit-files.ts'
    extractCommit('HEAD', process.argv[1], 'LICENSE', 'release', 'docs/verify.md')`
  const extract = (name: string, others: Readonly<Record<string, string>>) => {
    const directory = join(attributes, name)
    const args = ['--input-type=module', '--eval', script, directory]
    execFileSync(process.execPath, args, { env: { ...process.env, ...others } })
    return directory
  }
  const [plain, other] = [
    extract('plain', {}),
    extract('other', { GIT_CONFIG_COUNT: '4', ...Object.fromEntries(env) }),
  ]
  for (const path of ['LICENSE', 'release/first-steps.sh', 'docs/verify.md']) {
    const [one, another] = [join(plain, path), join(other, path)]
    t.equal(readFileSync(another, 'utf8'), readFileSync(one, 'utf8'), path)
    t.equal(statSync(another).mode, statSync(one).mode, path)
  }
})

test('`npm run release -- --check` says why this commit is refused, and builds nothing', async (t) => {
  const refusals = findRefusals(readCandidate(process.env))
  const script = `${ROOT}release/release.ts`
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, '--check'], {
    encoding: 'utf8',
  })
  t.equal(status, refusals.length === 0 ? 0 : 1, stderr)
  for (const line of refusals) t.ok(stdout.includes(`${line}\n`), line)
})

test('the released chart names the image by the digest that was built with it', async (t) => {
  const values = read('charts/openclaw/values.yaml')
  const named = nameImage(values, DIGEST)
  const sidecar = named.slice(named.indexOf('\nsidecar:\n'))
  t.match(sidecar, `    repository: ghcr.io/openclaw-k8s/openclaw-auth-sidecar\n`)
  t.match(sidecar, `    digest: ${DIGEST}\n`)
  t.equal(named.split(DIGEST).length, 2, 'no other image gets it')
  t.throws(() => nameImage(named, DIGEST), /does not have the sidecar's image/)
})

test('a chart is packed with the time of its commit, whatever the time is set to', async (t) => {
  const directory = t.testdir({
    helm: '#!/bin/sh\necho "$SOURCE_DATE_EPOCH" >"$4/openclaw-1.1.0.tgz"\n',
    charts: { openclaw: { 'values.yaml': read('charts/openclaw/values.yaml') } },
  })
  const helm = join(directory, 'helm')
  chmodSync(helm, 0o755)
  t.intercept(process, 'env', { value: { ...process.env, SOURCE_DATE_EPOCH: '5' } })
  const source: Source = { directory, revision: '', version: '1.1.0', time: 1_800_000_000 }
  const { file } = await packChart(source, { helm, digest: DIGEST, output: join(directory, 'out') })
  t.equal(readFileSync(file, 'utf8'), '1800000000\n')
  t.equal(statSync(file).mtimeMs, 1_800_000_000_000)
})

const BOM: Bom = {
  metadata: { component: { type: 'container', name: 'x', version: '1', purl: 'pkg:oci/x' } },
  components: [
    { type: 'library', name: 'pino', version: '10.3.1', purl: 'pkg:npm/pino@10.3.1' },
    {
      type: 'library',
      group: '@fastify',
      name: 'error',
      version: '4.2.1',
      purl: 'pkg:npm/%40fastify/error@4.2.1',
    },
    { type: 'platform', name: 'node', version: '26.10.0', purl: 'pkg:generic/node@26.10.0' },
  ],
  dependencies: [],
}
const RULE = '-'.repeat(80)
const LICENCES = `@fastify/error 4.2.1 (MIT)\n\nText (C).\n${RULE}\n\npino 10.3.1 (MIT)\n\nText.\n`

test('a bill of materials has everything whose licence lies in the image, and Node.js', async (t) => {
  t.strictSame(findGaps(BOM, LICENCES), [])
  t.strictSame(findGaps(BOM, `${LICENCES}${RULE}\n\nleft-pad 1.3.0 (MIT)\n`), [
    'left-pad@1.3.0 is in the image, and not in the bill',
  ])
  t.strictSame(findGaps(BOM, LICENCES.replace('10.3.1', '10.3.2')), [
    'pino@10.3.2 is in the image, and not in the bill',
  ])
  const withoutNode = { ...BOM, components: BOM.components.slice(0, 2) }
  t.strictSame(findGaps(withoutNode, LICENCES), ['the bill has no Node.js'])
  t.strictSame(findGaps(BOM, ''), ['the image has no licences of packages'])
  const vague = { ...BOM, components: [...BOM.components, { type: 'library', name: 'vague' }] }
  t.strictSame(findGaps(vague, LICENCES), ['vague has no version or no purl'])
})

test('a bill of materials has nothing that the bundle leaves out', (t) => {
  const [pino, error, node] = BOM.components.map((each) => ({ ...each, 'bom-ref': each.name }))
  const own = {
    type: 'application',
    group: '@openclaw-k8s',
    name: 'auth-sidecar',
    version: '1.0.0',
    purl: 'pkg:npm/%40openclaw-k8s/auth-sidecar@1.0.0',
  }
  const older = { ...pino, version: '9.0.0', 'bom-ref': 'older' } as Component
  const whole: Bom = {
    ...BOM,
    components: [own, pino, error, older, node] as Component[],
    dependencies: [
      { ref: 'root', dependsOn: ['pino', 'older'] },
      { ref: 'pino', dependsOn: ['error'] },
      { ref: 'older', dependsOn: ['error'] },
      { ref: 'error' },
    ],
  }
  const kept = keepBundled(whole, [LICENCES])
  t.strictSame(kept.components, [own, pino, error, node])
  t.strictSame(kept.dependencies, [
    { ref: 'root', dependsOn: ['pino'] },
    { ref: 'pino', dependsOn: ['error'] },
    { ref: 'error', dependsOn: [] },
  ])
  t.end()
})

test('the bill of materials is that of an image, and of no package in npm', (t) => {
  const { component } = addBase(BOM, []).metadata
  t.match(component, { type: 'container', name: 'openclaw-auth-sidecar' })
  t.match(component.purl, /^pkg:oci\/openclaw-auth-sidecar\?repository_url=ghcr\.io\//)
  t.end()
})

test("a package of the base image is named as Debian's", async (t) => {
  const paragraph = 'Package: libc6\nArchitecture: arm64\nVersion: 2.41-12+deb13u1\nSource: glibc\n'
  t.strictSame(readPackage(paragraph), {
    type: 'library',
    name: 'libc6',
    version: '2.41-12+deb13u1',
    purl: 'pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=arm64',
  })
  t.throws(() => readPackage('Package: libc6\n'), /has no Version/)
})

test('the provenance names the commit, the base images, and who built: a workflow or a person', async (t) => {
  const source: Source = { directory: '/', revision: 'cd'.repeat(20), version: '1.1.0', time: 1 }
  const bases = [
    { kind: 'image', name: 'docker.io/library/node:26-slim', pin: DIGEST },
    { kind: 'image', name: 'gcr.io/distroless/nodejs26-debian13:nonroot' },
  ] as const
  const byHand = describeBuild(source, bases, {})
  t.strictSame(byHand.buildDefinition.resolvedDependencies, [
    { uri: `git+${REPOSITORY}`, digest: { gitCommit: source.revision } },
    { uri: 'docker://docker.io/library/node:26-slim', digest: { sha256: 'ab'.repeat(32) } },
    { uri: 'docker://gcr.io/distroless/nodejs26-debian13:nonroot' },
  ])
  t.notMatch(JSON.stringify(byHand), 'actions')
  const workflow = 'o/r/.github/workflows/release.yml@refs/tags/v1.1.0'
  const onGitHub = describeBuild(source, bases, {
    GITHUB_SERVER_URL: 'https://github.com',
    GITHUB_REPOSITORY: 'o/r',
    GITHUB_REF: 'refs/tags/v1.1.0',
    GITHUB_WORKFLOW_REF: workflow,
    GITHUB_RUN_ID: '7',
    GITHUB_RUN_ATTEMPT: '1',
  })
  t.match(onGitHub.runDetails, {
    builder: { id: `https://github.com/${workflow}` },
    metadata: { invocationId: 'https://github.com/o/r/actions/runs/7/attempts/1' },
  })
  t.equal(
    onGitHub.buildDefinition.resolvedDependencies[0]?.uri,
    'git+https://github.com/o/r@refs/tags/v1.1.0',
  )
})

test('the rehearsal runs the commands of docs/verify.md, and replaces nothing but the names', async (t) => {
  const page = read('docs/verify.md')
  const commands = readCommands(page, 'VERSION=test\n')
  t.match(commands, /^VERSION=test\n/)
  t.notMatch(commands, 'certificate-identity')
  for (const each of ['cosign verify ', 'cosign verify-attestation ', 'helm pull '])
    t.ok(commands.includes(each), each)
  const [, names = ''] = /```sh\n(.*?)```/s.exec(page) ?? []
  const set = [...names.matchAll(/^([A-Z]+)=/gm)].map(([, name]) => name)
  t.strictSame(set, ['VERSION', 'IMAGE', 'CHART', 'REPOSITORY', 'SIGNER'])
  t.throws(() => readCommands(page.replace('<!-- verify: names -->', ''), ''), /sets no names/)
})

/** The commands of the page as somebody pastes them: one after the other, whatever became of the last. */
const runPasted = (t: Test, programs: Readonly<Record<string, string>>) => {
  const directory = t.testdir()
  const functions = Object.entries(programs).map(([name, body]) => `${name}() { ${body}; }`)
  const names = ['VERSION=1 IMAGE=i CHART=c REPOSITORY=r SIGNER=()', ...functions].join('\n')
  const script = readCommands(read('docs/verify.md'), names)
  const ended = spawnSync('bash', ['-c', script], { cwd: directory, encoding: 'utf8' })
  return { ...ended, directory }
}
const CHART_OF_OTHERS = `[ "$1" = pull ] || echo "    digest: ${DIGEST}"`

test('where no signature was verified, no later command of the page seems to succeed', async (t) => {
  const cosign = 'echo "Error: no matching signatures" >&2; return 1'
  const { status, stdout, stderr } = runPasted(t, { cosign, helm: CHART_OF_OTHERS })
  t.not(status, 0)
  t.match(stderr, 'IMAGE_DIGEST: is not verified')
  t.notMatch(stdout, DIGEST)
})

test('what was attested twice is read once', async (t) => {
  const statement = { predicate: { components: [], specVersion: '1.6', buildDefinition: {} } }
  Object.assign(statement.predicate.buildDefinition, { resolvedDependencies: ['d'] })
  const payload = Buffer.from(JSON.stringify(statement)).toString('base64')
  const signature = JSON.stringify([{ critical: { image: { 'docker-manifest-digest': DIGEST } } }])
  const cosign = `if [ "$1" = verify ]; then echo '${signature}'
    else for i in 1 2; do echo '{"payload":"${payload}"}'; done; fi`
  const ended = runPasted(t, { cosign, helm: CHART_OF_OTHERS })
  t.equal(ended.status, 0, ended.stderr)
  t.strictSame(
    JSON.parse(readFileSync(join(ended.directory, 'sbom.cdx.json'), 'utf8')),
    statement.predicate,
  )
})
