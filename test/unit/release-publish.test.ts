/** The order in which a release becomes public: nothing is found by its version before it is signed, and none changes. */

import { spawnSync } from 'node:child_process'
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test, type Test } from 'tap'
import type { Artifacts } from '../../release/build.ts'
import { publish } from '../../release/publish.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const digestOf = (byte: string): string => `sha256:${byte.repeat(32)}`
const [IMAGE, CHART, OTHER] = [digestOf('ab'), digestOf('cd'), digestOf('ef')]
const REGISTRY = 'registry.example/o'
const ARTIFACTS: Artifacts = {
  version: '1.1.0',
  image: { layout: 'image', digest: IMAGE },
  chart: { file: 'openclaw-1.1.0.tgz', sha256: '00' },
  sbom: { file: 'sbom', components: 1 },
  provenance: 'provenance',
}
const UNKNOWN = 'echo "Error: MANIFEST_UNKNOWN: manifest unknown" >&2; exit 1'

const writeProgram = (file: string, script: string): string => {
  writeFileSync(file, script, { mode: 0o755 })
  return file
}

/** Programs that write down how they are called; `answers` are cases of the shell. */
const publishWith = async (t: Test, answers: Readonly<Record<string, string>> = {}) => {
  const directory = t.testdir()
  const log = join(directory, 'log')
  const all = {
    'crane registry': 'echo "serving on port 4" >&2; exec sleep 600',
    'crane digest': UNKNOWN,
    'helm push': `echo "Digest: ${CHART}"`,
    ...answers,
  }
  const cases = Object.entries(all).map(([called, answer]) => `  "${called}") ${answer} ;;`)
  const script = `#!/bin/sh
program=\${0##*/}
echo "$program $*" >>'${log}'
case "$program $1" in
${cases.join('\n')}
esac
`
  const write = (name: string): string => writeProgram(join(directory, name), script)
  const programs = { cosign: write('cosign'), crane: write('crane'), helm: write('helm') }
  const [result] = await Promise.allSettled([publish(ARTIFACTS, { registry: REGISTRY, programs })])
  const calls = readFileSync(log, 'utf8').trim().split('\n')
  return { result, calls, toRegistry: calls.filter((each) => each.includes(REGISTRY)) }
}
const isChange = (call: string): boolean => !/^crane (?:digest|registry)|^helm/.test(call)

test('image and chart get the tag of their version last, when all signatures are there', async (t) => {
  const { result, toRegistry } = await publishWith(t)
  const [image, chart] = [
    `${REGISTRY}/openclaw-auth-sidecar@${IMAGE}`,
    `${REGISTRY}/charts/openclaw@${CHART}`,
  ]
  t.strictSame(result, { status: 'fulfilled', value: { image, chart } })
  const changes = toRegistry.filter(isChange)
  t.strictSame(changes.slice(-2), [`crane tag ${image} 1.1.0`, `crane tag ${chart} 1.1.0`])
  for (const change of changes.slice(0, -2)) {
    t.notMatch(change, '1.1.0', 'before that everything goes by its digest')
    t.match(change, /@sha256:[0-9a-f]{64}/)
  }
  const signed = changes.filter((each) => each.startsWith('cosign'))
  t.strictSame(
    signed.map((each) => each.split(' ')[1]),
    ['sign', 'sign', 'attest', 'attest', 'attest'],
  )
})

test('what could not be signed is not found by its version', async (t) => {
  for (const command of ['sign', 'attest']) {
    const { result, calls } = await publishWith(t, { [`cosign ${command}`]: 'exit 1' })
    t.equal(result.status, 'rejected')
    t.strictSame(
      calls.filter((each) => each.startsWith('crane tag')),
      [],
    )
  }
})

test('the chart that is signed is the one that Helm pushed, whatever the registry says', async (t) => {
  const { result, calls } = await publishWith(t, { 'crane digest': `echo ${OTHER}` })
  t.match(result, { status: 'rejected' })
  t.notOk(calls.some((each) => each.startsWith('cosign')))
  const silent = await publishWith(t, { 'helm push': 'true' })
  t.match(silent.result, { reason: { message: /names no digest of openclaw-1\.1\.0\.tgz/ } })
  t.strictSame(silent.calls.filter(isChange), [])
})

test('a version that is published stays as it is, and can be published again as it is', async (t) => {
  const other = await publishWith(t, { 'crane digest': `echo ${OTHER}` })
  const told = `openclaw-auth-sidecar:1.1.0 is published already as ${OTHER}, and this is ${IMAGE}`
  t.match(other.result, { reason: { message: told } })
  t.strictSame(other.toRegistry.filter(isChange), [])
  const otherChart = `case "$2" in *charts*) echo ${OTHER} ;; *) ${UNKNOWN} ;; esac`
  const chart = await publishWith(t, { 'crane digest': otherChart })
  t.match(chart.result, { reason: { message: /charts\/openclaw:1\.1\.0 is published already/ } })
  t.strictSame(chart.toRegistry.filter(isChange), [])
  const same = `case "$2" in *charts*) echo ${CHART} ;; *) echo ${IMAGE} ;; esac`
  t.equal((await publishWith(t, { 'crane digest': same })).result.status, 'fulfilled')
})

test('a registry that cannot say what is published gets nothing', async (t) => {
  const silent = { 'crane digest': 'echo "connection refused" >&2; exit 1' }
  const { result, toRegistry } = await publishWith(t, silent)
  t.match(result, { reason: { message: /cannot be told: connection refused/ } })
  t.strictSame(toRegistry.filter(isChange), [])
})

test('a release on GitHub is marked as a pre-release where its version is one', async (t) => {
  const directory = t.testdir({
    release: {
      'github-release.sh': readFileSync(`${ROOT}release/github-release.sh`),
      'changelog.ts': 'process.stdout.write(`notes of ${process.argv[2]}`)',
    },
    node_modules: { '.bin': {} },
    bin: {},
  })
  symlinkSync(process.execPath, join(directory, 'node_modules/.bin/node'))
  writeProgram(join(directory, 'bin/gh'), '#!/bin/sh\necho "$@"\n')
  const env = {
    ...process.env,
    PATH: `${join(directory, 'bin')}${delimiter}${process.env['PATH']}`,
  }
  const calledFor = (tag: string): string => {
    const args = [join(directory, 'release/github-release.sh'), tag]
    const { status, stdout, stderr } = spawnSync('bash', args, { env, encoding: 'utf8' })
    t.equal(status, 0, stderr)
    return stdout
  }
  t.notMatch(calledFor('v1.1.0'), '--prerelease')
  t.match(calledFor('v1.1.0'), /^release create v1\.1\.0 --verify-tag /)
  t.match(calledFor('v1.1.0-rc.1'), /^release create v1\.1\.0-rc\.1 .*--prerelease/)
  t.match(calledFor('v1.1.0-rc.1'), '.cache/release/openclaw-1.1.0-rc.1.tgz')
})
