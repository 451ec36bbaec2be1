/** `npm run release:dry`: a whole release into a registry on loopback, signed with a key that is thrown away. */

import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import {
  makeArm64RuntimeBase,
  makeBuildBase,
  makeRuntimeBase,
  npmArguments,
} from '../test/deploy/builder.ts'
import { mustRun } from '../test/deploy/tools.ts'
import { keepTrackOf, takeAllAway } from '../test/kit/leftovers.ts'
import { buildArtifacts, type Artifacts } from './build.ts'
import { readCandidate } from './candidate.ts'
import { startRegistry } from './local-registry.ts'
import { CHART, CHARTS, IMAGE, PLATFORMS, REGISTRY, REPOSITORY, type Platform } from './product.ts'
import { findPrograms, type Programs } from './programs.ts'
import { publish } from './publish.ts'
import { findRefusals } from './refusals.ts'
import { listForgeries } from './forgeries.ts'
import { runPage } from './verify-page.ts'

const say = (text: string): void => void process.stdout.write(`${text}\n`)

/** The base images of a registry cannot be had everywhere, so stand-ins take their place. */
const build = async (
  revision: string,
  { output, temporary, helm }: { output: string; temporary: string; helm: string },
): Promise<Artifacts> => {
  const runtimes: Readonly<Record<Platform, string>> = {
    'linux/amd64': makeRuntimeBase().name,
    'linux/arm64': makeArm64RuntimeBase().name,
  }
  const BUILD_IMAGE = makeBuildBase().name
  return buildArtifacts({
    revision,
    output,
    helm,
    env: process.env,
    basesOf: (platform) => ({ BUILD_IMAGE, RUNTIME_IMAGE: runtimes[platform] }),
    builderArguments: ['--pull-never', ...npmArguments(temporary)],
  })
}

/** The same commit twice, in directories of different names and at different times. */
const buildTwice = async (
  revision: string,
  places: { temporary: string; helm: string },
): Promise<Artifacts> => {
  const buildIn = (name: string) =>
    build(revision, { output: join(places.temporary, name), ...places })
  const first = await buildIn('first')
  say(`image, first build    ${first.image.digest}`)
  const second = await buildIn('second, elsewhere')
  say(`image, second build   ${second.image.digest}`)
  say(`chart, first build    sha256:${first.chart.sha256}`)
  say(`chart, second build   sha256:${second.chart.sha256}`)
  assert.equal(second.image.digest, first.image.digest, 'the image is not reproducible')
  assert.equal(second.chart.sha256, first.chart.sha256, 'the chart is not reproducible')
  const [one, other] = [first, second].map(({ sbom }) => readFileSync(sbom.file, 'utf8'))
  assert.equal(one, other, 'the bill of materials is not reproducible')
  say(`bill of materials     CycloneDX, valid, ${first.sbom.components} components`)
  return first
}

const makeKey = async (cosign: string, directory: string): Promise<string> => {
  mkdirSync(directory)
  await mustRun({ path: cosign, args: ['generate-key-pair'], cwd: directory })
  return join(directory, 'cosign')
}

/** What takes the place of the page's names: this registry, and a key for the workflow's identity. */
const namesFor = (version: string, registry: string, key: string): string => `
VERSION=${version}
IMAGE=${registry}/${IMAGE}
CHART=${registry}/${CHARTS}/${CHART}
REPOSITORY=${REPOSITORY}
SIGNER=(--key=${key}.pub --insecure-ignore-tlog=true)
# A registry on this machine has no TLS, which cosign knows of itself and Helm has to be told.
helm() { if [ "$1" = pull ]; then command helm "$@" --plain-http; else command helm "$@"; fi; }
`

const rehearse = async (temporary: string): Promise<void> => {
  const candidate = readCandidate(process.env)
  const { revision, version } = candidate
  const programs = await findPrograms()
  const artifacts = await buildTwice(revision, { temporary, helm: programs.helm })
  const registry = await startRegistry(programs.crane, join(temporary, 'registry'))
  const key = await makeKey(programs.cosign, join(temporary, 'key'))
  const services = join(temporary, 'no-log.json')
  await mustRun({ path: programs.cosign, args: ['signing-config', 'create', '--out', services] })
  const target = {
    registry: registry.address,
    signer: [`--key=${key}.key`, `--signing-config=${services}`],
    programs,
  }
  const published = await publish(artifacts, target)
  const verify = async (signer: string) => {
    const directory = mkdtempSync(join(temporary, 'user-'))
    const names = namesFor(version, registry.address, signer)
    return runPage(names, directory, pathOf(programs))
  }
  const verified = await verify(key)
  assert.equal(verified.code, 0, verified.stderr)
  say(`\ndocs/verify.md, with a key for the workflow's identity:\n${verified.stdout}`)
  const world = { artifacts, target, published, temporary }
  for (const { name, forge, restore } of listForgeries(world)) {
    await forge()
    const { code, stderr } = await verify(key)
    assert.notEqual(code, 0, `${name} was not noticed`)
    say(`${name}: refused: ${lastLine(stderr)}`)
    await restore()
  }
  const stranger = await makeKey(programs.cosign, join(temporary, 'stranger'))
  const { code, stderr } = await verify(stranger)
  assert.notEqual(code, 0, 'the signature of another key was accepted')
  say(`the key of somebody else: refused: ${lastLine(stderr)}`)
  const again = await verify(key)
  assert.equal(again.code, 0, `what was put back is refused: ${again.stderr}`)
  await registry.stop()
  say(`
would push and sign   ${REGISTRY}/${IMAGE}:${version} (${PLATFORMS.join(', ')})
                      ${REGISTRY}/${CHARTS}/${CHART}:${version}
would attest          CycloneDX and SLSA provenance 1 for the image, provenance for the chart
`)
  const refusals = findRefusals(candidate)
  say(
    refusals.length === 0
      ? 'The release of this commit would go through.'
      : `The release of this commit would be refused:\n  ${refusals.join('\n  ')}`,
  )
}

/** The page calls programs by their names. */
const pathOf = (programs: Programs) => {
  const directories = Object.values(programs).map((path) => dirname(path))
  return { PATH: [...directories, process.env['PATH']].join(delimiter) }
}

const lastLine = (text: string): string => text.trim().split('\n').at(-1) ?? ''

const temporary = mkdtempSync(join(tmpdir(), 'release-dry-'))
keepTrackOf(async () => rmSync(temporary, { recursive: true, force: true }))
// Cosign asks for the password of a key, unless this is set.
process.env['COSIGN_PASSWORD'] = ''
try {
  await rehearse(temporary)
} finally {
  await takeAllAway()
}
