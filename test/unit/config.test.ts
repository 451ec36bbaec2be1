/** What the configuration promises: strength of its sources, strictness, and problems with a place. */

import { test } from 'tap'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { OPTION_PATHS } from '@openclaw-k8s/auth-sidecar/config/options.ts'
import { ConfigError } from '@openclaw-k8s/auth-sidecar/config/problems.ts'
import type { Problem } from '@openclaw-k8s/auth-sidecar/config/problems.ts'
import { jsonSchema } from '@openclaw-k8s/auth-sidecar/config/schema.ts'
import type { Config } from '@openclaw-k8s/auth-sidecar/config/schema.ts'

type Sources = {
  readonly file?: string
  readonly env?: Readonly<Record<string, string>>
  readonly flags?: readonly string[]
}

const FILE = 'config.yaml'
/** The least document that loads; more can be appended under other sections. */
const WORKERS =
  'k8sTrust:\n  allowedIdentities: [{ namespace: openclaw, serviceAccount: worker }]\n'

const load = ({ file = WORKERS, env = {}, flags = [] }: Sources) =>
  loadConfig({ file: FILE, env, flags, readFile: () => file })

const problemsOf = (sources: Sources): readonly Problem[] => {
  try {
    load(sources)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  return []
}

/** The document that sets one dotted path, in flow style, in a file that is otherwise good. */
const documentOf = (path: string, value: string): string => {
  const keys = path.split('.')
  const nested = keys.reduceRight((inner, key) => `{ ${key}: ${inner} }`, value)
  return keys[0] === 'k8sTrust' ? nested : `${WORKERS}${nested.slice(2, -2)}\n`
}

const valueAt = (config: Config, path: string): unknown =>
  path.split('.').reduce<unknown>((node, key) => (node as Record<string, unknown>)[key], config)

test('everything has the published default', async (t) => {
  const { config, warnings } = load({})
  t.strictSame(warnings, [])
  t.strictSame(config, {
    listen: {
      workers: { host: '0.0.0.0', port: 18443 },
      admin: { host: '0.0.0.0', port: 9464 },
    },
    gateway: {
      url: 'ws://127.0.0.1:18789',
      protocol: 'openclaw',
      auth: { mode: 'token', secretFile: '/etc/openclaw-gateway/token' },
      deviceSeedFile: '/etc/auth-sidecar/device-seed',
      connectTimeout: 5_000,
      allowRemoteGateway: false,
    },
    kubernetes: {},
    k8sTrust: {
      enabled: true,
      audiences: ['openclaw-gateway'],
      allowedIdentities: [
        {
          namespace: 'openclaw',
          serviceAccount: 'worker',
          allowedRoles: ['node'],
          allowedCommands: ['*'],
        },
      ],
      ephemeralSessions: true,
      auditLog: true,
      credentialHeader: 'X-OpenClaw-SA-Token',
      inBandCredentials: true,
      sourceAddress: 'enforce',
      allowHostNetwork: false,
      maxTokenLifetime: 90_000_000,
      onTokenExpiry: 'keep-while-pod-lives',
      expiredTokenReconnectGrace: 0,
      maxSessionAge: 0,
      terminationGrace: 30_000,
      maxWatchStaleness: 300_000,
      onApiOutage: 'refuse',
    },
    jwks: { cooldown: 30_000, refresh: 300_000, staleAfter: 600_000 },
    review: {
      timeout: 3_000,
      concurrency: 32,
      queue: 1_024,
      cacheTtl: 60_000,
      negativeTtl: 2_000,
      cacheEntries: 20_000,
    },
    limits: {
      messageBytes: 26_214_400,
      handshakeTimeout: 15_000,
      preAuthFrameBytes: 65_536,
      streams: 10_000,
      streamsPerPod: 8,
      pendingPerAddress: 32,
      pending: 2_000,
      failuresPerAddress: 20,
      emptyFragments: 1_000,
      idlePing: 20_000,
    },
    drain: { window: 20_000 },
    log: { level: 'info' },
  })
})

test('every option is described, with its default or that it is required', async (t) => {
  type SchemaNode = {
    readonly properties?: Readonly<Record<string, SchemaNode>>
    readonly description?: string
    readonly default?: unknown
    readonly type?: string
    readonly minimum?: number
    readonly maximum?: number
  }
  const visit = (node: SchemaNode, path: string): void => {
    for (const [key, child] of Object.entries(node.properties ?? {})) {
      const { description = '' } = child
      t.not(description, '', `${path}${key} is described`)
      if (child.properties === undefined && !path.includes('tls.')) {
        t.match(description, /Default:? |Required/, `${path}${key} says its default`)
      }
      if (typeof child.default !== 'object' && child.default !== undefined) {
        t.match(
          description,
          `Default ${JSON.stringify(child.default).replaceAll(`"`, ``)}`,
          `${path}${key}`,
        )
      }
      if (child.type === 'integer') {
        t.match(description, `${child.minimum} to ${child.maximum}`, `${path}${key}`)
      }
      visit(child, `${path}${key}.`)
    }
  }
  const schema = jsonSchema() as SchemaNode & { $id: string; $schema: string; title: string }
  visit(schema, '')
  t.equal(schema.$schema, 'https://json-schema.org/draft/2020-12/schema')
  t.type(schema.$id, 'string')
  t.type(schema.title, 'string')
  t.notMatch(JSON.stringify(schema), /\(\?[!=<]/, 'Helm reads patterns with RE2: no lookaround')
})

test('values are read in the notation of the document', async (t) => {
  const good: readonly (readonly [path: string, text: string, value: unknown])[] = [
    ['review.timeout', '500ms', 500],
    ['review.timeout', '30s', 30_000],
    ['review.cacheTtl', '10m', 600_000],
    ['review.cacheTtl', '0s', 0],
    ['k8sTrust.maxTokenLifetime', '1h', 3_600_000],
    ['k8sTrust.maxTokenLifetime', '8784h', 31_622_400_000],
    ['k8sTrust.maxSessionAge', '576h', 2_073_600_000],
    ['limits.messageBytes', '26214400', 26_214_400],
    ['limits.messageBytes', '1GiB', 1_073_741_824],
    ['limits.preAuthFrameBytes', '64KiB', 65_536],
    ['limits.failuresPerAddress', '100/s', 100],
    ['limits.failuresPerAddress', '0', 0],
    ['limits.failuresPerAddress', '0/s', 0],
    ['listen.workers', '"[::1]:0"', { host: '::1', port: 0 }],
    ['listen.publicHost', 'gateway.example', 'gateway.example'],
    ['listen.publicHost', '"[fd00::1]:443"', '[fd00::1]:443'],
    ['listen.workers', 'localhost:65535', { host: 'localhost', port: 65_535 }],
    ['gateway.url', 'ws://localhost:1/path', 'ws://localhost:1/path'],
    ['gateway.url', 'ws://127.200.0.1:1', 'ws://127.200.0.1:1'],
    ['gateway.url', '"ws://[::1]:18789"', 'ws://[::1]:18789'],
    ['kubernetes.apiServer', 'https://10.0.0.1:6443', 'https://10.0.0.1:6443'],
    ['kubernetes.issuers', '[https://a]', ['https://a']],
  ]
  for (const [path, text, value] of good) {
    const { config } = load({ flags: [`${path}=${text}`] })
    t.strictSame(valueAt(config, path), value, `${path}=${text}`)
  }
})

test('what is out of bounds or form is refused at its path and place', async (t) => {
  const bad: readonly (readonly [path: string, value: string, reason: RegExp])[] = [
    ['review.timeout', '31s', /10ms to 30s/],
    ['review.timeout', '9ms', /10ms to 30s/],
    ['review.timeout', '5', /with its unit/],
    ['review.timeout', '3 s', /not a duration/],
    ['review.timeout', '-3s', /not a duration/],
    ['review.timeout', '1.5s', /not a duration/],
    ['review.timeout', '1d', /not a duration/],
    ['review.timeout', '99999999999h', /not a duration/],
    ['review.timeout', 'null', /with its unit/],
    ['review.cacheTtl', '601s', /0s to 10m/],
    ['review.negativeTtl', '2001ms', /0s to 2s/],
    ['review.concurrency', '0', /below 1/],
    ['review.concurrency', '1025', /above 1024/],
    ['review.concurrency', '1.5', /Expected a whole number, got a number with a fraction/],
    ['review.concurrency', '"3"', /Expected a number, got text/],
    ['limits.messageBytes', '2GiB', /1KiB to 1GiB/],
    ['limits.messageBytes', '1023', /1KiB to 1GiB/],
    ['limits.messageBytes', '25MB', /not a size/],
    ['limits.messageBytes', '-1', /1KiB to 1GiB/],
    ['limits.failuresPerAddress', '20', /not a rate/],
    ['limits.failuresPerAddress', '20/m', /not a rate/],
    ['limits.failuresPerAddress', '100001/s', /0\/s to 100000\/s/],
    ['k8sTrust.maxSessionAge', '577h', /0s to 576h/],
    ['k8sTrust.credentialHeader', 'X Token', /not a header name/],
    ['k8sTrust.credentialHeader', 'authorization', /already has another meaning/],
    ['k8sTrust.credentialHeader', 'X-Forwarded-For', /already has another meaning/],
    ['k8sTrust.credentialHeader', 'Sec-WebSocket-Protocol', /already has another meaning/],
    ['k8sTrust.sourceAddress', 'off', /one of: enforce, report/],
    ['k8sTrust.enabled', '"yes"', /got text/],
    ['k8sTrust.audiences', '[]', /list is empty: it would admit nobody or anybody/],
    ['k8sTrust.audiences', '["a b"]', /without blanks/],
    ['k8sTrust.audiences', '[""]', /empty/],
    ['k8sTrust.audiences', 'a', /Expected a list, got text/],
    ['k8sTrust.allowedIdentities', '[]', /list is empty: it would admit nobody or anybody/],
    ['listen.workers', '0.0.0.0', /not an address/],
    ['listen.publicHost', 'wss://gateway.example', /not a host/],
    ['listen.publicHost', '"a, b"', /not a host/],
    ['listen.publicHost', '""', /not a host/],
    ['listen.workers', ':18443', /not an address/],
    ['listen.workers', '"::1:18443"', /not an address/],
    ['listen.workers', '"[::g]:1"', /not an address/],
    ['listen.workers', '"[1.2.3.4]:1"', /not an IPv6 address/],
    ['listen.workers', '1.2.3.400:1', /not an IPv4 address/],
    ['listen.workers', '0.0.0.0:65536', /0 to 65535/],
    ['listen.workers', '0.0.0.0:-1', /not an address/],
    ['listen.admin', '127.0.0.1:18443', /admin port is the worker port/],
    ['gateway.url', 'wss://127.0.0.1:1', /by ws:\/\/ only/],
    ['gateway.url', 'http://127.0.0.1:1', /by ws:\/\/ only/],
    ['gateway.url', 'ws://', /not a URL/],
    ['gateway.url', 'ws://127.0.0.1:0', /Port 0/],
    ['gateway.url', 'ws://user:pass@127.0.0.1:1', /Credentials/],
    ['gateway.url', 'ws://127.0.0.1:1/#a', /fragment/],
    ['gateway.url', 'ws://10.0.0.1:18789', /not on loopback/],
    ['gateway.url', 'ws://gateway:18789', /not on loopback/],
    ['gateway.url', 'ws://localhost.example:18789', /not on loopback/],
    ['gateway.url', '"ws://[::2]:18789"', /not on loopback/],
    ['gateway.url', 'ws://127.0.0.1:18443', /port of listen.workers/],
    ['gateway.url', 'ws://localhost:9464', /port of listen.admin/],
    ['gateway.protocol', 'opencalw', /one of: openclaw, stream/],
    ['kubernetes.apiServer', 'http://10.0.0.1', /https:\/\/ only/],
    ['kubernetes.issuers', '[]', /list is empty/],
    ['jwks.staleAfter', '4m', /too old to serve/],
    ['log.level', 'loud', /one of: fatal/],
    ['listen', '3', /Expected a section, got a number/],
    ['limits', 'null', /Expected a section, got nothing/],
  ]
  for (const [path, value, reason] of bad) {
    const problems = problemsOf({ file: documentOf(path, value) })
    const found = problems.find((problem) => problem.path.replace(/\[0\]$/, '') === path)
    t.match(found?.reason, reason, `${path}: ${value}`)
    const line = path.startsWith('k8sTrust') ? 1 : 3
    t.match(found?.where, new RegExp(`^config\\.yaml:${line}:\\d+$`), `${path}: ${value}: where`)
  }
})

test('names of identities are Kubernetes names or globs of them', async (t) => {
  const lastKeysOf = (namespace: string, serviceAccount: string) =>
    problemsOf({
      flags: [`k8sTrust.allowedIdentities=${JSON.stringify([{ namespace, serviceAccount }])}`],
    }).map(({ path }) => path.split('.').at(-1))
  for (const good of ['a', 'open-claw', '*', 'team-*', 'a?c', '0', 'a'.repeat(63)]) {
    t.strictSame(lastKeysOf(good, good), [], good)
  }
  for (const bad of ['', 'A', '-a', 'a-', 'a_b', 'a/b', 'a b', '[a]', 'a\n', 'ä']) {
    t.strictSame(lastKeysOf(bad, bad), ['namespace', 'serviceAccount'], JSON.stringify(bad))
  }
  t.strictSame(lastKeysOf('a.b', 'a.b'), ['namespace'], 'only a ServiceAccount may have dots')
  t.strictSame(
    lastKeysOf('a'.repeat(64), 'a'.repeat(254)),
    ['namespace', 'serviceAccount'],
    'length',
  )
  t.strictSame(lastKeysOf('a', 'a..b'), ['serviceAccount'])
  t.strictSame(lastKeysOf('a', `${'a.'.repeat(126)}a`), [], '253 characters')
  t.strictSame(lastKeysOf('a', `${'a.'.repeat(127)}a`), ['serviceAccount'], '255 characters')
})

test('an allow-list entry must be whole and grant something', async (t) => {
  const file =
    'k8sTrust:\n  allowedIdentities:\n    - namespace: a\n      allowedRoles: []\n      role: x\n'
  t.match(problemsOf({ file }), [
    { path: 'k8sTrust.allowedIdentities[0].serviceAccount', where: 'config.yaml:3:7' },
    { path: 'k8sTrust.allowedIdentities[0].allowedRoles', where: 'config.yaml:4:21' },
    { path: 'k8sTrust.allowedIdentities[0].role', where: 'config.yaml:5:7' },
  ])
})

test('an empty or missing file leaves the allow-list to be named', async (t) => {
  for (const file of ['', '# nothing\n', '{}', 'k8sTrust: {}', 'k8sTrust: { audiences: [a] }']) {
    t.match(
      problemsOf({ file }),
      [{ path: 'k8sTrust.allowedIdentities', where: 'config.yaml:1:1', hint: /at least one/ }],
      JSON.stringify(file),
    )
  }
  t.throws(
    () => loadConfig({ env: {}, flags: [], readFile: () => '' }),
    /^The configuration has a problem:\n  k8sTrust\.allowedIdentities: /,
  )
})

test('the missing allow-list is reported beside other problems', async (t) => {
  const paths = problemsOf({ file: 'k8sTrust: { auditLog: 3 }\ndrain: { window: 1 }' }).map(
    ({ path }) => path,
  )
  t.strictSame(paths.sort(), ['drain.window', 'k8sTrust.allowedIdentities', 'k8sTrust.auditLog'])
})

test('disabled trust needs no allow-list, but an explicit one is never empty', async (t) => {
  const { config } = load({ file: 'k8sTrust: { enabled: false }' })
  t.strictSame(config.k8sTrust.allowedIdentities, [])
  t.match(problemsOf({ file: 'k8sTrust: { enabled: false, allowedIdentities: [] }' }), [
    { path: 'k8sTrust.allowedIdentities' },
  ])
})

test('an allow-list that admits the whole cluster is warned of', async (t) => {
  const list = (namespace: string, serviceAccount: string) =>
    load({
      flags: [`k8sTrust.allowedIdentities=${JSON.stringify([{ namespace, serviceAccount }])}`],
    })
  t.match(list('*', '*').warnings, [/^k8sTrust\.allowedIdentities\[0\]: Every pod/])
  t.strictSame(list('*', 'worker').warnings, [])
  t.strictSame(list('openclaw', '*').warnings, [])
})

test('unknown keys are problems with place and the nearest known name', async (t) => {
  const cases: readonly (readonly [file: string, path: string, where: string, hint?: string])[] = [
    ['k8strust: {}\n', 'k8strust', '1:1', 'Did you mean k8sTrust?'],
    ['review:\n  cacheTTL: 3s\n', 'review.cacheTTL', '2:3', 'Did you mean cacheTtl?'],
    ['review:\n  timeoutt: 3s\n', 'review.timeoutt', '2:3', 'Did you mean timeout?'],
    ['cacheTtl: 3s\n', 'cacheTtl', '1:1', 'Did you mean review.cacheTtl?'],
    ['xyzzy: 3\n', 'xyzzy', '1:1'],
    ['gateway: { auth: { token: hunter2 } }', 'gateway.auth.token', '1:20', 'Secrets do not'],
    ['gateway: { port: 1 }', 'gateway.port', '1:12'],
    ['__proto__: { a: 1 }\n', '__proto__', '1:1'],
    ['constructor: { a: 1 }\n', 'constructor', '1:1'],
    ['drain: { __proto__: { window: 1h } }\n', 'drain.__proto__', '1:10'],
    ['drain: { "toString": 1 }\n', 'drain.toString', '1:10'],
    ['<<: { a: 1 }\n', '<<', '1:1'],
  ]
  for (const [file, path, where, hint] of cases) {
    const found = problemsOf({ file }).find((problem) => problem.path === path)
    t.equal(found?.where, `config.yaml:${where}`, path)
    t.match(found?.reason, 'does not exist')
    if (hint === undefined) t.equal(found?.hint, undefined, `${path} is near to nothing`)
    else t.match(found?.hint, hint)
  }
  t.equal(({} as { a?: number }).a, undefined, 'no prototype was touched')
})

test('keys of strangers are made safe to print and short', async (t) => {
  const [first] = problemsOf({ file: `${WORKERS}"\\e[31m${'x'.repeat(500)}": 1` })
  t.match(first?.path, /^\?\[31mx+…$/)
  t.ok((first?.path.length ?? 999) < 80)
})

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

test('a document that is no section is refused', async (t) => {
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
  })
})

test('a problem of a variable or flag names it instead of the file', async (t) => {
  const file = `${WORKERS}drain: { window: 1s }\n`
  t.match(problemsOf({ file, env: { AUTH_SIDECAR_DRAIN_WINDOW: 'soon' } }), [
    { path: 'drain.window', where: 'AUTH_SIDECAR_DRAIN_WINDOW', reason: /not a duration/ },
  ])
  t.match(problemsOf({ file, flags: ['drain.window=soon'] }), [
    { path: 'drain.window', where: '--set drain.window', reason: /not a duration/ },
  ])
  const both = { env: { AUTH_SIDECAR_DRAIN_WINDOW: '1s' }, flags: ['drain.window=soon'] }
  t.match(problemsOf(both), [{ path: 'drain.window', where: '--set drain.window' }])
  t.match(problemsOf({ env: { AUTH_SIDECAR_K8S_TRUST_AUDIENCES: '[a' } }), [
    { path: 'k8sTrust.audiences', where: /^AUTH_SIDECAR_K8S_TRUST_AUDIENCES:1:/ },
  ])
  const unsettable = problemsOf({ file: 'listen: 3', flags: ['listen.admin=127.0.0.1:1'] })
  t.match(unsettable, [{ path: 'listen', where: 'config.yaml:1:9' }, {}])
})

test('unknown variables and flags are problems with the nearest name', async (t) => {
  t.match(problemsOf({ env: { AUTH_SIDECAR_REVIEW_TIMEOT: '3s' } }), [
    { where: 'AUTH_SIDECAR_REVIEW_TIMEOT', hint: 'Did you mean AUTH_SIDECAR_REVIEW_TIMEOUT?' },
  ])
  t.match(problemsOf({ env: { AUTH_SIDECAR_GATEWAY_PORT: '18789' } }), [
    { where: 'AUTH_SIDECAR_GATEWAY_PORT', reason: 'This variable sets no option.' },
  ])
  t.match(problemsOf({ flags: ['review.timeot=3s'] }), [
    { path: 'review.timeot', hint: 'Did you mean review.timeout?' },
  ])
  t.match(problemsOf({ flags: ['drain.window'] }), [
    { path: 'drain.window', reason: 'The flag gives no value.' },
  ])
  for (const flag of ['__proto__.x=1', 'constructor=1', '=1', '']) {
    t.match(problemsOf({ flags: [flag] }), [{ reason: 'This option does not exist.' }], flag)
  }
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

test('every option outside lists has one variable of its own', async (t) => {
  t.ok(OPTION_PATHS.length > 50)
  t.ok(OPTION_PATHS.includes('listen.tls.clientCaFile'))
  const variables = OPTION_PATHS.map((path) => path.replaceAll('.', '').toLowerCase())
  t.equal(new Set(variables).size, OPTION_PATHS.length)
})

test('a remote gateway is possible only when it is asked for', async (t) => {
  const flags = ['gateway.url=ws://10.0.0.1:18443', 'gateway.allowRemoteGateway=true']
  t.equal(load({ flags }).config.gateway.url, 'ws://10.0.0.1:18443')
  t.match(
    problemsOf({ flags: ['gateway.url=ws://0.0.0.0:18443', 'gateway.allowRemoteGateway=true'] }),
    [{ path: 'gateway.url', reason: /dial itself/ }],
  )
  const free = ['listen.workers=127.0.0.1:0', 'listen.admin=127.0.0.1:0']
  t.strictSame(problemsOf({ flags: free }), [], 'two free ports never meet')
})

test('a file that cannot be read is a problem with a hint', async (t) => {
  const read = (code: string) => () =>
    loadConfig({
      file: FILE,
      env: {},
      flags: [],
      readFile: () => {
        throw Object.assign(new Error('no'), { code })
      },
    })
  t.throws(
    read('ENOENT'),
    /\(config\.yaml\): The file does not exist\.\n    Hint: .* --config FILE/,
  )
  t.throws(read('EACCES'), /\(config\.yaml\): .* permission denied/)
})

test('what the user reads names path, place, reason and hint', async (t) => {
  try {
    load({ file: `${WORKERS}review:\n  cacheTTL: 3s\n  timeout: 1h\n` })
    t.fail('the document is bad')
  } catch (error) {
    t.equal(
      String(error),
      [
        'The configuration has 2 problems:',
        '  review.timeout (config.yaml:5:12): The value is out of range: 10ms to 30s.',
        '  review.cacheTTL (config.yaml:4:3): This option does not exist.',
        '    Hint: Did you mean cacheTtl?',
      ].join('\n'),
    )
  }
})

test('a flood of problems is cut short', async (t) => {
  const file = Array.from({ length: 50 }, (_, index) => `x${index}: 1\n`).join('')
  try {
    load({ file })
    t.fail('the document is bad')
  } catch (error) {
    t.match(String(error), /51 problems:[^]*… and 31 more$/)
  }
})

test('no problem quotes a value', async (t) => {
  const secret = 'hunter2-hunter2'
  const documents = [
    `gateway: { auth: { token: ${secret} }, url: "ws://a:${secret}@x" }`,
    `gateway: { auth: { mode: ${secret} }, deviceSeedFile: [${secret}] }`,
    `k8sTrust: { audiences: ${secret}, credentialHeader: "${secret} x" }`,
    `review: { timeout: ${secret}, queue: ${secret} }`,
    `a: "${secret}`,
    `a: "${secret}" ${secret}`,
  ]
  for (const file of documents) {
    const problems = problemsOf({ file })
    t.ok(problems.length > 0)
    t.notMatch(new ConfigError(problems).toString(), secret)
  }
})

const ORIGINAL = `{
  "gateway": {
    "mode": "local",
    "port": 18790,
    "bind": "lan",
    "auth": {
      "mode": "token",
      "k8sTrust": {
        "enabled": true,
        "allowedIdentities": [
          { "namespace": "openclaw", "serviceAccount": "openclaw-worker", "allowedRoles": ["node"] }
        ],
        "ephemeralSessions": true,
        "auditLog": true
      }
    }
  }
}`

test('the original document loads as it stands', async (t) => {
  const { config, warnings } = load({ file: ORIGINAL })
  t.equal(config.gateway.protocol, 'openclaw')
  t.equal(config.gateway.url, 'ws://127.0.0.1:18790')
  t.equal(config.gateway.auth.mode, 'token')
  t.strictSame(config.k8sTrust.audiences, ['openclaw-gateway'])
  t.equal(config.k8sTrust.allowedIdentities[0]?.serviceAccount, 'openclaw-worker')
  t.match(warnings, [/^gateway\.bind \(config\.yaml:5:13\): The gateway can then be reached past/])
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

test('problems of the original document stand at their original path', async (t) => {
  const change = (from: string, to: string) => problemsOf({ file: ORIGINAL.replace(from, to) })
  t.match(change('"auditLog"', '"auditLogs"'), [
    { path: 'gateway.auth.k8sTrust.auditLogs', where: 'config.yaml:14:9', hint: /auditLog\?/ },
  ])
  t.match(change('"node"', ''), [
    { path: 'gateway.auth.k8sTrust.allowedIdentities[0].allowedRoles', where: /config.yaml:11:/ },
  ])
  t.match(change('"bind": "lan"', '"binds": "lan"'), [
    { path: 'gateway.binds', where: 'config.yaml:5:5' },
  ])
  t.match(change('18790', '"18790"'), [
    { path: 'gateway.port', where: 'config.yaml:4:13', reason: /1 to 65535/ },
  ])
  t.match(change('18790', '18443'), [
    { path: 'gateway.port', where: 'config.yaml:4:13', reason: /dial itself/ },
  ])
  t.match(change('"mode": "local"', '"mode": "remote"'), [{ path: 'gateway.mode' }])
  t.match(change('"mode": "token"', '"mode": "none"'), [{ path: 'gateway.auth.mode' }])
  t.match(change('"bind": "lan"', '"url": "ws://127.0.0.1:1"'), [
    { path: 'gateway.port', reason: /both/ },
  ])
  t.match(change('{\n  "gateway"', '{\n  "k8sTrust": {},\n  "gateway"'), [
    { path: 'gateway.auth.k8sTrust', reason: /twice/ },
  ])
})
