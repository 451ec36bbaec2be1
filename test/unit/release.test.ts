/** The workflows, and what a release refuses: names that can move. */

import { execFileSync, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { parse } from 'yaml'
import { listUnpinned } from '../../release/pinned-files.ts'
import {
  describeReference,
  findReferences,
  findSecurityReleases,
  pinReferences,
  replaceSecurityReleases,
} from '../../release/pins.ts'
import { findUnpinned } from '../../release/unpinned.ts'
import { TARGETS } from '../fuzz/targets.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string): string => readFileSync(`${ROOT}${path}`, 'utf8')
const WORKFLOWS = readdirSync(`${ROOT}.github/workflows`).map((name) => ({
  name,
  text: read(`.github/workflows/${name}`),
}))

/** Every string under a key of a parsed workflow. */
const valuesOf = (key: string, value: unknown): readonly string[] => {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, each]) =>
    name === key && typeof each === 'string' ? [each] : valuesOf(key, each),
  )
}

const DIGEST = `sha256:${'ab'.repeat(32)}`
const COMMIT = 'cd'.repeat(20)
const SOURCE = `\
ARG BUILD_IMAGE=docker.io/library/node:26-slim
ARG VERSION=0.1.0
      - uses: actions/checkout@v6
      - uses: ./.github/actions/own
          - docker.io/kindest/node:v1.37.0
    image: gcr.io/distroless/nodejs26-debian13:nonroot
`
const PINNED = `\
ARG BUILD_IMAGE=docker.io/library/node:26-slim@${DIGEST}
ARG VERSION=0.1.0
      - uses: actions/checkout@${COMMIT} # v6
      - uses: ./.github/actions/own
          - docker.io/kindest/node:v1.37.0@${DIGEST}
    image: gcr.io/distroless/nodejs26-debian13:nonroot@${DIGEST}
`

test('every image and every foreign action is pinned, and again where it was pinned before', async (t) => {
  t.strictSame(findReferences(SOURCE), [
    { kind: 'image', name: 'docker.io/library/node:26-slim' },
    { kind: 'image', name: 'docker.io/kindest/node:v1.37.0' },
    { kind: 'image', name: 'gcr.io/distroless/nodejs26-debian13:nonroot' },
    { kind: 'action', name: 'actions/checkout', tag: 'v6' },
  ])
  const pins = { image: DIGEST, action: COMMIT }
  t.equal(
    pinReferences(SOURCE, ({ kind }) => pins[kind]),
    PINNED,
  )
  t.notOk(findReferences(PINNED).some(({ pin }) => pin === undefined))
  const newer = { image: `sha256:${'12'.repeat(32)}`, action: '34'.repeat(20) }
  t.equal(
    pinReferences(PINNED, ({ kind, tag = '' }) => newer[kind] + tag.slice(2)),
    PINNED.replaceAll(DIGEST, newer.image).replaceAll(COMMIT, newer.action),
  )
})

test('the workflows and the Dockerfile name nothing that the pinning does not find', async (t) => {
  for (const { name, text } of WORKFLOWS) {
    const actions = findReferences(text).filter(({ kind }) => kind === 'action')
    t.equal(actions.length, text.match(/\buses:/g)?.length, name)
    t.notMatch(text, /uses: docker:\/\//, name)
    t.strictSame(
      [...new Set(actions.map((each) => each.name))],
      ['actions/checkout'],
      'everything else is a script',
    )
  }
  const dockerfile = read('Dockerfile.sidecar')
  const images = findReferences(dockerfile)
  t.equal(images.length, dockerfile.match(/^FROM /gm)?.length)
  t.match(dockerfile, /^FROM --platform=\S+ \$\{BUILD_IMAGE\} AS build$/m)
  t.match(dockerfile, /^FROM --platform=\S+ \$\{RUNTIME_IMAGE\}$/m)
})

test('what is not pinned is refused in every place, and however it is written', async (t) => {
  const workflow = (lines: string) => findUnpinned('a.yml', `jobs:\n  a:\n${lines}\n`)
  const step = (line: string) => workflow(`    steps:\n      - ${line}`)
  for (const [found, name] of [
    [step('uses: actions/checkout@v6'), 'actions/checkout@v6'],
    [step('uses: "actions/checkout@v6"'), 'actions/checkout@v6'],
    [step("'uses':   actions/checkout@v6 # newest"), 'actions/checkout@v6'],
    [step(`uses: actions/checkout@${COMMIT.slice(1)}`), `actions/checkout@${COMMIT.slice(1)}`],
    [step('uses: docker://alpine:3'), 'docker://alpine:3'],
    [step('{ uses: o/r/.github/workflows/a.yml@main }'), 'o/r/.github/workflows/a.yml@main'],
    [workflow('    uses: o/r/.github/workflows/a.yml@v1'), 'o/r/.github/workflows/a.yml@v1'],
    [workflow('    container: node:26'), 'node:26'],
    [workflow('    container: { image: node }'), 'node'],
    [workflow('    services:\n      db:\n        image: postgres:18 # old'), 'postgres:18'],
    [workflow("    matrix: { image: ['a.io/b:1'] }"), 'a.io/b:1'],
    [workflow('    matrix:\n      base:\n        - "a.io/b/c:1"'), 'a.io/b/c:1'],
  ] as const)
    t.strictSame(found, [name], name)
  const dockerfile = (text: string) => findUnpinned('Dockerfile.sidecar', `${text}\n`)
  for (const [text, name] of [
    ['FROM node:26', 'node:26'],
    ['FROM node AS node\nFROM node', 'node'],
    ['from --platform=linux/arm64 node:26 as build', 'node:26'],
    ['ARG B="node:26"\nFROM ${B}', 'node:26'],
    ['ARG B\nFROM $B', '$B'],
    ['ARG R=a.io/b # no comment\nFROM $R:1', 'a.io/b:1'],
    ['FROM --platform=$P \\\n  node:26', 'node:26'],
    ['FROM scratch\nCOPY --from=a.io/b:1 /x /', 'a.io/b:1'],
    ['FROM scratch AS one\nRUN --mount=type=bind,from=a.io/b,target=/x true', 'a.io/b'],
    ['FROM scratch\nADD https://a.io/x /', 'https://a.io/x'],
    ['# syntax=docker/dockerfile:1\nFROM scratch', 'docker/dockerfile:1'],
    [`ARG B=node:26@${DIGEST.slice(0, -1)}\nFROM $B`, `node:26@${DIGEST.slice(0, -1)}`],
  ] as const)
    t.strictSame(dockerfile(text), [name], text)
  const pinned = `ARG B=node:26@${DIGEST}\nFROM --platform=$P \${B} AS one\nFROM scratch`
  t.strictSame(dockerfile(`${pinned}\nCOPY --from=one /x /\nCOPY --from=0 /y /`), [])
  t.strictSame(step(`uses: actions/checkout@${COMMIT} # v6`), [])
  t.strictSame(step('uses: ./.github/actions/own'), [])
  t.strictSame(
    workflow('    container: ${{ matrix.image }}\n    env: { A: "see https://a.io/b:c" }'),
    [],
  )
})

test('`npm run pin` can pin everything that is refused', async (t) => {
  const references = [
    'Dockerfile.sidecar',
    ...WORKFLOWS.map(({ name }) => `.github/workflows/${name}`),
  ].flatMap((path) =>
    findReferences(read(path))
      .filter(({ pin }) => pin === undefined)
      .map((each) => `${path}: ${describeReference(each)}`),
  )
  t.strictSame(new Set(listUnpinned()), new Set(references))
})

test('`npm run pin -- --check` names what is not pinned, and fails', async (t) => {
  const checked = spawnSync(process.execPath, [`${ROOT}release/pin.ts`, '--check'], {
    encoding: 'utf8',
  })
  const unpinned = [
    'Dockerfile.sidecar',
    ...WORKFLOWS.map(({ name }) => `.github/workflows/${name}`),
  ]
    .flatMap((path) => findReferences(read(path)))
    .filter(({ pin }) => pin === undefined)
  t.equal(checked.status, unpinned.length === 0 ? 0 : 1, checked.stderr)
  for (const { name } of unpinned) t.match(checked.stdout, name)
})

test('a workflow has no more rights than its job needs, and keeps no credential in the checkout', async (t) => {
  for (const { name, text } of WORKFLOWS) {
    t.match(text, /^permissions:(?: \{\}|\n {2}contents: read)\n/m, name)
    const checkouts = text.match(/uses: actions\/checkout@/g)?.length
    t.equal(text.match(/persist-credentials: false/g)?.length, checkouts, name)
    t.equal(text.match(/runs-on:/g)?.length, text.match(/timeout-minutes:/g)?.length, name)
    // What a stranger can choose reaches a script as an environment variable only.
    const scripts = valuesOf('run', parse(text)).join('\n')
    t.ok(scripts.includes('npm ci'), name)
    t.notMatch(scripts, '${{', name)
  }
})

test('no workflow runs code of a fork with rights, and only the release has any', async (t) => {
  for (const { name, text } of WORKFLOWS) {
    const { on, jobs } = parse(text) as {
      readonly on: Readonly<Record<string, unknown>>
      readonly jobs: Readonly<
        Record<string, { readonly permissions?: Readonly<Record<string, string>> }>
      >
    }
    const known = ['push', 'pull_request', 'schedule', 'workflow_dispatch']
    t.strictSame(
      Object.keys(on).filter((event) => !known.includes(event)),
      [],
      name,
    )
    const rights = Object.entries(jobs).flatMap(([job, { permissions = {} }]) =>
      Object.entries(permissions).map(([right, level]) => `${job} ${right}: ${level}`),
    )
    const writing = rights.filter((right) => right.endsWith('write'))
    const publishing = ['contents', 'packages', 'id-token'].map(
      (right) => `publish ${right}: write`,
    )
    t.strictSame(writing, name === 'release.yml' ? publishing : [], name)
    t.notMatch(text, 'secrets.', 'the token of the run is all there is')
  }
})

test('the nightly run fuzzes every target', async (t) => {
  const nightly = read('.github/workflows/nightly.yml')
  const [, targets = ''] = /target: \[(.*)\]/.exec(nightly) ?? []
  t.strictSame(targets.split(', ').sort(), TARGETS.map(({ name }) => name).sort())
})

test('the floors of Node come from the security releases of its list', async (t) => {
  const list = [
    { version: 'v26.6.0', security: false },
    { version: 'v26.5.1', security: true },
    { version: 'v24.18.1', security: true },
    { version: 'v26.3.1', security: true },
  ]
  const found = findSecurityReleases(list, [24, 26])
  t.strictSame(found, { 24: '24.18.1', 26: '26.5.1' })
  t.throws(() => findSecurityReleases(list, [22]), /no security release of line 22/)
  const source = read('sidecar/src/lib/node-floor.ts')
  const changed = replaceSecurityReleases(source, { 26: '26.99.1', 28: '28.0.1' })
  t.match(changed, "= {\n  26: '26.99.1',\n  28: '28.0.1',\n}\n")
  t.notMatch(changed, '22.23')
})

test('the scripts of the workflows can be run by hand', async (t) => {
  const scripts = WORKFLOWS.flatMap(({ text }) => text.match(/release\/[\w-]+\.(?:sh|ts)/g) ?? [])
  for (const path of new Set(scripts)) t.ok(read(path).length > 0, path)
  for (const path of scripts.filter((each) => each.endsWith('.sh'))) {
    execFileSync('bash', ['-n', `${ROOT}${path}`])
    t.match(read(path), /^#!.*\n# .*\nset -euo pipefail\n/)
  }
})
