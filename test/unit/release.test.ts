/** The workflows, and what a release refuses: names that can move. */

import { execFileSync, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import {
  findReferences,
  findSecurityReleases,
  pinReferences,
  replaceSecurityReleases,
} from '../../release/pins.ts'
import { TARGETS } from '../fuzz/targets.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string): string => readFileSync(`${ROOT}${path}`, 'utf8')
const WORKFLOWS = readdirSync(`${ROOT}.github/workflows`).map((name) => ({
  name,
  text: read(`.github/workflows/${name}`),
}))

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
    const scripts = text.match(/^ *- run: .*$/gm)?.join('\n') ?? ''
    t.notMatch(scripts, '${{', name)
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
