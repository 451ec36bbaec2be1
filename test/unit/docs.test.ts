/** What the documents name is there: scripts, tests and their names, values of the chart. */

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { join } from 'node:path'
import { test } from 'tap'
import { parseDocument } from 'yaml'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const documents = [
  'README.md',
  'SECURITY.md',
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.md'))
    .map((path) => join('docs', path)),
].map((path) => ({ path, text: read(path) }))
/** Pages that set values of the chart; in the others `--set` is the sidecar's own flag. */
const pages = documents
  .filter(({ path }) => !/^docs\/(reference\.md|performance\/)/.test(path))
  .map(({ text }) => text)
  .join('\n')

/** What a pattern's first group matches in the documents, and where. */
const findAll = (pattern: RegExp) =>
  documents.flatMap(({ path, text }) =>
    [...text.matchAll(pattern)].map(([, found = '']) => ({ path, found })),
  )

test('every npm script that is named exists', async (t) => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
  const named = findAll(/\bnpm run (?:-s |--silent )?([a-z][\w:-]*)/g)
  t.ok(named.length > 0)
  t.strictSame(
    named.filter(({ found }) => !Object.hasOwn(scripts, found)),
    [],
  )
})

test('every file of the tests that is named exists', async (t) => {
  const named = findAll(/\b(test\/[\w./-]+\.(?:ts|yaml))\b/g)
  t.ok(named.length > 0)
  t.strictSame(
    named.filter(({ found }) => !existsSync(join(ROOT, found))),
    [],
  )
})

test('every proof in a table of attacks names a test in that file', async (t) => {
  const tables = ['docs/security.md', 'SECURITY.md'].map((path) => {
    const proofs = [...read(path).matchAll(/`(test\/[^`]+)`((?:,? "[^"]+")+)/g)]
    t.ok(proofs.length > 0, path)
    return proofs
  })
  const proofs = tables
    .flat()
    .flatMap(([, file = '', names = '']) =>
      [...names.matchAll(/"([^"]+)"/g)].map(([, name = '']) => ({ file, name })),
    )
  t.strictSame(
    proofs.filter(({ file, name }) => !existsSync(join(ROOT, file)) || !read(file).includes(name)),
    [],
  )
})

test('every value of the chart that is named or set exists', async (t) => {
  const values = parseDocument(read('charts/openclaw/values.yaml'))
  const section = /^### Helm values$([^]*?)^#{2,3} /m.exec(read('docs/install.md'))?.[1] ?? ''
  const firstCells = [...section.matchAll(/^\| (`.+?) \|/gm)].map(([, cell]) => cell).join()
  const named = [...firstCells.matchAll(/`([\w.]+)`/g)].map(([, key = '']) => key)
  const set = [...pages.matchAll(/--set[ =]([\w.]+)=/g)].map(([, key = '']) => key)
  t.ok(named.length > 0 && set.length > 0)
  t.strictSame(
    [...named, ...set].filter((key) => !values.hasIn(key.split('.'))),
    [],
  )
})

test('the gateway has the same configuration in the manifests, the example and the documents', async (t) => {
  const files = [
    'manifests/gateway-config.yaml',
    'manifests/overlays/example/gateway.yaml',
    'docs/openclaw.md',
    'docs/existing-gateway.md',
  ]
  const configs = files.map((path) => {
    const document = [...read(path).matchAll(/^( *)\{\n[^]*?\n\1\}$/gm)]
      .map(([text]) => JSON.parse(text) as { readonly gateway?: Readonly<Record<string, unknown>> })
      .find(({ gateway }) => gateway?.['bind'] !== undefined)
    // The token is in a Secret, or for you to fill in.
    return { path, ...document?.gateway, auth: { mode: 'token' } }
  })
  const [{ path: _path, ...chart } = { path: '' }] = configs
  t.match(chart, { bind: 'loopback', trustedProxies: ['127.0.0.1', '::1'] })
  t.strictSame(
    configs,
    files.map((path) => ({ path, ...chart })),
  )
})

test('every command in the sidecar of a pod is one that its image has', async (t) => {
  const others = [
    'CONTRIBUTING.md',
    'charts/openclaw/README.md',
    'charts/openclaw/templates/NOTES.txt',
    '.github/ISSUE_TEMPLATE/bug_report.yml',
  ].map((path) => ({ path, text: read(path) }))
  const calls = [...documents, ...others].flatMap(({ path, text }) =>
    [...text.matchAll(/\bexec\b[^\n]* -c auth-sidecar --\s+(?:\\\s+)?(\S+)/g)].map(
      ([, program = '']) => ({ path, program }),
    ),
  )
  t.ok(calls.some(({ path }) => path === 'README.md'))
  t.strictSame(
    calls.filter(({ program }) => program !== 'auth-sidecar'),
    [],
  )
})

test('the light and the dark picture differ in their colors alone', async (t) => {
  const [light, dark] = ['light', 'dark'].map((name) => read(`docs/line-${name}.svg`))
  t.not(light, dark)
  const uncolored = (svg = '') => svg.replaceAll(/#[0-9a-f]{6}\b/g, '#')
  t.equal(uncolored(light), uncolored(dark))
})

test('the documents use the quotation marks of their language', async (t) => {
  const quoting = [...documents, { path: 'CONTRIBUTING.md', text: read('CONTRIBUTING.md') }]
  t.strictSame(
    quoting.filter(({ text }) => /[\u00ab\u00bb]/.test(text)).map(({ path }) => path),
    [],
  )
})
