/** Where a configuration comes from: one document, variables and flags, each stronger than the last. */

import { test } from 'tap'
import { OPTION_PATHS } from '@openclaw-k8s/auth-sidecar/config/options.ts'
import { load, ORIGINAL, problemsOf, WORKERS } from '../kit/config-sources.ts'

test('text that is not exactly one small YAML document is refused with its place', async (t) => {
  const cases: readonly (readonly [file: string, where: string, reason: RegExp])[] = [
    ['a: 1\na: 2\n', 'config.yaml:2:1', /twice/],
    ['{"a": 1,\n "a": 2}', 'config.yaml:2:2', /twice/],
    ['a: 1\n---\nb: 1\n', 'config.yaml:2:1', /more than one document/],
    ['a: [1\nb: 2', 'config.yaml:2:', /not valid YAML/],
    ['a: !env X\n', 'config.yaml:1:4', /not valid YAML: Unresolved tag/],
    ['['.repeat(20_000), 'config.yaml:1:', /nested too deeply/],
    ['# '.padEnd(1_048_577, 'x'), 'config.yaml', /larger than 1 MiB/],
    [
      `a: &a [${'x,'.repeat(9)}x]\nb: &b [${'*a,'.repeat(9)}*a]\nc: [${'*b,'.repeat(9)}*b]\n`,
      'config.yaml',
      /too many aliases/,
    ],
  ]
  for (const [file, where, reason] of cases) {
    const [first] = problemsOf({ file })
    t.ok(first?.where?.startsWith(where), `${where} of ${first?.where}`)
    t.match(first?.reason, reason)
  }
})

test('YAML that is commonly written wrong is told how to write it', async (t) => {
  for (const [file, hint] of [
    ['a:\n\tb: 1\n', 'Indent with spaces.'],
    ['a:\n    b: 1\n  c: 1\n', 'Begin all options of a section in the same column.'],
    ['a: 1\na: 2\n', 'Keep one of the two.'],
    ['a: 1\n---\nb: 1\n', 'Keep one, and remove the --- between them.'],
  ] as const) {
    t.equal(problemsOf({ file })[0]?.hint, hint, file)
  }
})

test('a few aliases are fine, and a problem behind one finds its place', async (t) => {
  const file = `${WORKERS}jwks: { cooldown: &long 9m }\ndrain: { window: *long }\n`
  t.equal(load({ file }).config.drain.window, 540_000)
  const behind = 'k8sTrust: &trust\n  auditLog: 3\nlimits: *trust\n'
  t.match(
    problemsOf({ file: behind }).find(({ path }) => path === 'limits.auditLog'),
    { where: 'config.yaml:2:3' },
  )
})

test('JSON is read as well, tabs and all', async (t) => {
  const file = '{\n\t"k8sTrust":\t{ "enabled": false },\n\t"log": { "level": "debug" }\n}\n'
  t.equal(load({ file }).config.log.level, 'debug')
})

test('a document that is not a section is refused', async (t) => {
  for (const file of ['[]', '3', 'text']) {
    t.match(problemsOf({ file }), [{ path: '', reason: /Expected a section/ }], file)
  }
})

test('the environment is stronger than the file, and flags than both', async (t) => {
  const file = `${WORKERS}drain: { window: 1s }\n`
  const env = { AUTH_SIDECAR_DRAIN_WINDOW: '2s' }
  t.equal(load({ file }).config.drain.window, 1_000)
  t.equal(load({ file, env }).config.drain.window, 2_000)
  t.equal(load({ file, env, flags: ['drain.window=3s'] }).config.drain.window, 3_000)
  t.equal(load({ flags: ['drain.window=3s', 'drain.window=4s'] }).config.drain.window, 4_000)
})

test('variables carry text, numbers, lists and sections', async (t) => {
  const { config, explicitPaths } = load({
    file: '',
    env: {
      AUTH_SIDECAR_K8S_TRUST_ALLOWED_IDENTITIES: '[{ namespace: a, serviceAccount: b }]',
      AUTH_SIDECAR_K8S_TRUST_MAX_TOKEN_LIFETIME: '2h',
      AUTH_SIDECAR_LISTEN_WORKERS: '[::]:18443',
      AUTH_SIDECAR_LISTEN_ADMIN: '"[::1]:9464"',
      AUTH_SIDECAR_LIMITS_STREAMS: '7',
      AUTH_SIDECAR_REVIEW_TIMEOUT: '2s',
      AUTH_SIDECAR_REVIEW: '{ timeout: 1s, queue: 5 }',
      UNRELATED: '[',
    },
  })
  t.equal(config.k8sTrust.allowedIdentities[0]?.serviceAccount, 'b')
  t.equal(config.k8sTrust.maxTokenLifetime, 7_200_000)
  t.strictSame(config.listen.workers, { host: '::', port: 18_443 })
  t.strictSame(config.listen.admin, { host: '::1', port: 9_464 })
  t.equal(config.limits.streams, 7)
  t.equal(config.review.queue, 5)
  t.equal(config.review.timeout, 2_000, 'an option is stronger than its section')
  t.ok(explicitPaths.has('review.queue'))
  t.notOk(explicitPaths.has('gateway.deviceSeedFile'))
})

test('a variable alone may open an optional section', async (t) => {
  const env = { AUTH_SIDECAR_LISTEN_TLS_CERT_FILE: '/tls/tls.crt' }
  t.match(problemsOf({ env }), [{ path: 'listen.tls.keyFile', reason: 'The option is missing.' }])
  const both = { ...env, AUTH_SIDECAR_LISTEN_TLS_KEY_FILE: '/tls/tls.key' }
  t.strictSame(load({ env: both }).config.listen.tls, {
    certFile: '/tls/tls.crt',
    keyFile: '/tls/tls.key',
    minVersion: 'TLSv1.3',
  })
})

test('variables that Kubernetes sets for Services are ignored', async (t) => {
  const env = {
    AUTH_SIDECAR_SERVICE_HOST: '10.0.0.1',
    AUTH_SIDECAR_SERVICE_PORT: '9464',
    AUTH_SIDECAR_SERVICE_PORT_METRICS: '9464',
    AUTH_SIDECAR_PORT: 'tcp://10.0.0.1:9464',
    AUTH_SIDECAR_PORT_9464_TCP: 'tcp://10.0.0.1:9464',
    AUTH_SIDECAR_PORT_9464_TCP_ADDR: '10.0.0.1',
    AUTH_SIDECAR_METRICS_SERVICE_HOST: '10.0.0.1',
    AUTH_SIDECAR_METRICS_PORT: 'tcp://10.0.0.1:9464',
    AUTH_SIDECAR_METRICS_PORT_9464_TCP_PROTO: 'tcp',
  }
  t.strictSame(problemsOf({ env }), [])
})

test('every option outside lists has its own variable', async (t) => {
  t.ok(OPTION_PATHS.length > 50)
  t.ok(OPTION_PATHS.includes('listen.tls.clientCaFile'))
  const variables = OPTION_PATHS.map((path) => path.replaceAll('.', '').toLowerCase())
  t.equal(new Set(variables).size, OPTION_PATHS.length)
})

test('the original document loads unchanged', async (t) => {
  const { config, warnings } = load({ file: ORIGINAL })
  t.equal(config.gateway.protocol, 'openclaw')
  t.equal(config.gateway.url, 'ws://127.0.0.1:18790')
  t.equal(config.gateway.auth.mode, 'token')
  t.strictSame(config.k8sTrust.audiences, ['openclaw-gateway'])
  t.equal(config.k8sTrust.allowedIdentities[0]?.serviceAccount, 'openclaw-worker')
  t.match(warnings, [
    /^gateway\.bind \(config\.yaml:5:13\): Workers could then bypass the sidecar and/,
  ])
  t.strictSame(load({ file: ORIGINAL.replace('"lan"', '"loopback"') }).warnings, [])
  const bare = ORIGINAL.replace(/"(mode|port|bind)": [^,]+,/g, '')
  t.equal(load({ file: bare }).config.gateway.url, 'ws://127.0.0.1:18789')
})

test('the original document is overridden under our names', async (t) => {
  const flags = ['gateway.url=ws://127.0.0.1:5']
  const env = { AUTH_SIDECAR_K8S_TRUST_AUDIENCES: '[other]' }
  const { config } = load({ file: ORIGINAL, flags, env })
  t.equal(config.gateway.url, 'ws://127.0.0.1:5')
  t.strictSame(config.k8sTrust.audiences, ['other'])
  t.match(problemsOf({ file: ORIGINAL, flags: ['k8sTrust.audiences=[]'] }), [
    { path: 'k8sTrust.audiences', where: '--set k8sTrust.audiences' },
  ])
})
