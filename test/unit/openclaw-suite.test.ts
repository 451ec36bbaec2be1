/** What the suite against the real product is asked for, and what it learns of a version. */

import { mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { absenceOf } from '../openclaw/bounded-test.ts'
import { parseConfigSchema } from '../openclaw/config-schema.ts'
import { isVersion, provideProduct } from '../openclaw/install.ts'
import { entryIn, PINNED } from '../openclaw/product.ts'
import { parseOptions } from '../openclaw/suite-options.ts'

test('without arguments the pinned version is run in both modes', async (t) => {
  t.strictSame(parseOptions([]), {
    gateways: [PINNED.version],
    node: PINNED.version,
    modes: ['token', 'trusted-proxy'],
    only: undefined,
    writesPage: true,
  })
})

test('several gateways are run, each once, with one version of the nodes', async (t) => {
  const args = ['--openclaw', '2026.7.35,2026.7.1-2', '--openclaw', '2026.7.35']
  t.match(parseOptions([...args, '--node', '2026.5.7', '--mode', 'token']), {
    gateways: ['2026.7.35', '2026.7.1-2'],
    node: '2026.5.7',
    modes: ['token'],
  })
})

test('only a whole run writes the page', async (t) => {
  t.match(parseOptions(['--only', 'refused']), { only: 'refused', writesPage: false })
  t.match(parseOptions(['--no-page']), { writesPage: false })
})

test('what cannot be run is refused with a reason', async (t) => {
  for (const [args, problem] of [
    [['--openclaw', 'latest'], /not a version such as 2026\.\d+\.\d+: latest/],
    [['--openclaw', '../2026.9.6'], /not a version/],
    [['--node', ''], /not a version/],
    [['--mode', 'none'], /no such mode: none/],
    [['--gateway', '2026.9.6'], /--gateway/],
    [['--openclaw', Array.from({ length: 21 }, (_, i) => `2026.1.${i}`).join()], /at most 20/],
  ] as const) {
    t.match(parseOptions(args), { problem }, args.join(' '))
  }
})

test('a version is a number, not a tag, a range or a path', async (t) => {
  for (const version of ['2026.9.6', '2026.7.1-2', '2026.10.35']) t.ok(isVersion(version), version)
  for (const version of ['latest', '^2026.9.6', '2026.9', '2026.9.6/..', '2026.9.6\n', '']) {
    t.notOk(isVersion(version), version)
  }
})

test('a version that npm never published is refused, and nothing of it is kept', async (t) => {
  const { createServer } = await import('node:http')
  const registry = createServer((_request, response) => {
    response.writeHead(404, { 'content-type': 'application/json' }).end('{"error":"not found"}')
  })
  await new Promise<void>((resolve) => registry.listen(0, '127.0.0.1', resolve))
  t.teardown(() => registry.close())
  const { port } = registry.address() as { port: number }
  const cache = t.testdir()
  const env = {
    ...process.env,
    OPENCLAW_VERSIONS_DIR: cache,
    // As `npm run --silent` hands it down.
    npm_config_loglevel: 'silent',
    npm_config_registry: `http://127.0.0.1:${port}/`,
    npm_config_cache: mkdtempSync(join(cache, '../npm-cache-')),
  }
  const said: string[] = []
  await t.rejects(
    provideProduct('2026.1.0', (text) => said.push(text), env),
    /npm has no openclaw@2026\.1\.0: `npm view openclaw versions` lists what there is/,
  )
  t.strictSame(said, ['installing OpenClaw 2026.1.0, once …'])
  const { readdirSync } = await import('node:fs')
  t.strictSame(readdirSync(cache), [])
})

test('an installed version is taken as it is', async (t) => {
  const cache = t.testdir({
    '2026.1.0': { node_modules: { openclaw: { 'openclaw.mjs': '' } } },
  })
  const product = await provideProduct('2026.1.0', () => t.fail('nothing to install'), {
    OPENCLAW_VERSIONS_DIR: cache,
  })
  t.strictSame(product, { version: '2026.1.0', entry: entryIn(join(cache, '2026.1.0')) })
})

test('a key is known where the schema of the version has it, banner or not', async (t) => {
  const schema = {
    properties: { gateway: { properties: { port: {}, nodes: { properties: {} } } } },
  }
  const { knows } = parseConfigSchema(`OpenClaw 2026.7.35\n${JSON.stringify(schema)}`)
  t.ok(knows('gateway.port'))
  t.ok(knows('gateway.nodes'))
  t.notOk(knows('gateway.nodes.pairing'))
  t.notOk(knows('gateway.nodes.pairing.sshVerify'))
})

test('only a test left out for its version is told from a skipped one', async (t) => {
  t.equal(absenceOf('not in this version: no such thing'), 'no such thing')
  t.equal(absenceOf('the registry is away'), undefined)
  t.equal(absenceOf(true), undefined)
  t.equal(absenceOf(undefined), undefined)
})
