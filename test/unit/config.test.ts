/** What an option may be: its default, its notation, its bounds, and what must be named. */

import { test } from 'tap'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { jsonSchema } from '@openclaw-k8s/auth-sidecar/config/schema.ts'
import { documentOf, load, problemsOf, valueAt, WORKERS } from '../kit/config-sources.ts'

test('everything has the published default', async (t) => {
  const { config, warnings } = load({})
  t.strictSame(warnings, [])
  t.strictSame(config, {
    listen: {
      workers: { host: '::', port: 18443 },
      admin: { host: '::', port: 9464 },
    },
    gateway: {
      url: 'ws://127.0.0.1:18789',
      protocol: 'openclaw',
      auth: { mode: 'token', secretFile: '/etc/openclaw-gateway/token' },
      deviceSeedFile: '/etc/auth-sidecar/device-seed',
      connectTimeout: 5_000,
      sessionHosting: false,
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
          allowSessionHosting: false,
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
      hostedStreamsPerPod: 64,
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
    ['listen.workers', '"[FD00:0::1]:0"', { host: 'fd00::1', port: 0 }],
    ['listen.workers', '"[0:0:0:0:0:0:0:0]:0"', { host: '::', port: 0 }],
    ['listen.workers', '"[::ffff:0.0.0.0]:0"', { host: '0.0.0.0', port: 0 }],
    ['listen.publicHost', 'gateway.example', 'gateway.example'],
    ['listen.publicHost', '"[fd00::1]:443"', '[fd00::1]:443'],
    ['listen.workers', 'localhost:65535', { host: 'localhost', port: 65_535 }],
    ['gateway.url', 'ws://localhost:1/path', 'ws://localhost:1/path'],
    ['gateway.url', 'ws://127.200.0.1:1', 'ws://127.200.0.1:1'],
    ['gateway.url', '"ws://[::1]:18789"', 'ws://[::1]:18789'],
    ['gateway.url', '"ws://[::ffff:127.0.0.1]:18789"', 'ws://[::ffff:127.0.0.1]:18789'],
    ['kubernetes.apiServer', 'https://10.0.0.1:6443', 'https://10.0.0.1:6443'],
    [
      'kubernetes.apiServer',
      'https://rancher/k8s/clusters/c-abc',
      'https://rancher/k8s/clusters/c-abc',
    ],
    ['kubernetes.apiServer', 'https://rancher/k8s/', 'https://rancher/k8s/'],
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
    ['review.timeout', '5', /text with a unit/],
    ['review.timeout', '3 s', /not a duration/],
    ['review.timeout', '-3s', /not a duration/],
    ['review.timeout', '1.5s', /not a duration/],
    ['review.timeout', '1d', /not a duration/],
    ['review.timeout', '99999999999h', /not a duration/],
    ['review.timeout', 'null', /text with a unit/],
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
    ['k8sTrust.audiences', '[]', /list must not be empty/],
    ['k8sTrust.audiences', '["a b"]', /without spaces/],
    ['k8sTrust.audiences', '[""]', /empty/],
    ['k8sTrust.audiences', 'a', /Expected a list, got text/],
    ['k8sTrust.allowedIdentities', '[]', /list must not be empty/],
    ['listen.workers', '0.0.0.0', /not an address/],
    ['listen.publicHost', 'wss://gateway.example', /not a host/],
    ['listen.publicHost', '"a, b"', /not a host/],
    ['listen.publicHost', '""', /not a host/],
    ['listen.workers', ':18443', /not an address/],
    ['listen.workers', '"::1:18443"', /not an address/],
    ['listen.workers', '"[::g]:1"', /not an address/],
    ['listen.workers', '"[1.2.3.4]:1"', /not an IPv6 address/],
    ['listen.workers', '"[fe80::1%eth0]:1"', /not an address/],
    ['listen.workers', '1.2.3.400:1', /not an IPv4 address/],
    ['listen.workers', '0.0.0.0:65536', /0 to 65535/],
    ['listen.workers', '0.0.0.0:-1', /not an address/],
    ['listen.admin', '127.0.0.1:18443', /admin port and the worker port are the same/],
    ['gateway.url', 'wss://127.0.0.1:1', /must start with ws:\/\//],
    ['gateway.url', 'http://127.0.0.1:1', /must start with ws:\/\//],
    ['gateway.url', 'ws://', /not a URL/],
    ['gateway.url', 'ws://127.0.0.1:0', /Port 0/],
    ['gateway.url', 'ws://user:pass@127.0.0.1:1', /Credentials/],
    ['gateway.url', 'ws://127.0.0.1:1/#a', /fragment/],
    ['gateway.url', 'ws://10.0.0.1:18789', /not on loopback/],
    ['gateway.url', 'ws://gateway:18789', /not on loopback/],
    ['gateway.url', 'ws://localhost.example:18789', /not on loopback/],
    ['gateway.url', '"ws://[::2]:18789"', /not on loopback/],
    ['gateway.url', '"ws://[::ffff:10.0.0.1]:18789"', /not on loopback/],
    ['gateway.url', '"ws://[fe80::1%25eth0]:18789"', /not a URL/],
    ['gateway.url', '"ws://[::1]:18443"', /same port as listen.workers/],
    ['gateway.url', 'ws://127.0.0.1:18443', /same port as listen.workers/],
    ['gateway.url', 'ws://localhost:9464', /same port as listen.admin/],
    ['gateway.protocol', 'opencalw', /one of: openclaw, stream/],
    ['kubernetes.apiServer', 'http://10.0.0.1', /must start with https:\/\//],
    ['kubernetes.apiServer', 'https://10.0.0.1/?x=1', /query is not allowed/],
    ['kubernetes.apiServer', 'https://10.0.0.1?', /query is not allowed/],
    ['kubernetes.apiServer', 'https://10.0.0.1/a/../b', /normal form, which is \/b\./],
    ['kubernetes.apiServer', 'https://10.0.0.1/a/%2e%2e/b', /normal form/],
    ['kubernetes.apiServer', 'https://10.0.0.1/a\\b', /normal form/],
    ['kubernetes.apiServer', '"https://10.0.0.1/a\\tb"', /normal form/],
    ['kubernetes.apiServer', 'https://@10.0.0.1', /Credentials/],
    ['gateway.url', 'ws://127.0.0.1:1/./a', /normal form/],
    ['kubernetes.issuers', '[]', /list must not be empty/],
    ['jwks.staleAfter', '4m', /too old to use/],
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

test('a value of another type is told how to write it, unless the reason says so itself', async (t) => {
  const cases: readonly (readonly [path: string, value: string, hint: string | undefined])[] = [
    ['k8sTrust.enabled', 'yes', 'Write true or false, without quotes.'],
    ['k8sTrust.audiences', 'x', 'Write a list, such as [a, b].'],
    ['review.concurrency', '"3"', 'Write a number, without quotes.'],
    ['review.concurrency', '1.5', 'Write a whole number, without quotes.'],
    ['gateway.deviceSeedFile', '3', 'Write it in quotes.'],
    ['limits', 'x', 'Write its options below it, indented.'],
    ['review.timeout', '5', undefined],
  ]
  for (const [path, value, hint] of cases) {
    const problems = problemsOf({ file: documentOf(path, value) })
    t.equal(problems.find((problem) => problem.path === path)?.hint, hint, `${path}: ${value}`)
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

test('with an empty or missing file the allow-list is still required', async (t) => {
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

test('the missing allow-list is reported along with other problems', async (t) => {
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

test('an allow-list that admits the whole cluster gets a warning', async (t) => {
  const list = (namespace: string, serviceAccount: string) =>
    load({
      flags: [`k8sTrust.allowedIdentities=${JSON.stringify([{ namespace, serviceAccount }])}`],
    })
  t.match(list('*', '*').warnings, [
    /^k8sTrust\.allowedIdentities\[0\]: Every pod .* Name the namespace/,
  ])
  t.strictSame(list('*', 'worker').warnings, [])
  t.strictSame(list('openclaw', '*').warnings, [])
})

test('a remote gateway needs an explicit option', async (t) => {
  const flags = ['gateway.url=ws://10.0.0.1:18443', 'gateway.allowRemoteGateway=true']
  t.equal(load({ flags }).config.gateway.url, 'ws://10.0.0.1:18443')
  t.match(
    problemsOf({ flags: ['gateway.url=ws://0.0.0.0:18443', 'gateway.allowRemoteGateway=true'] }),
    [{ path: 'gateway.url', reason: /connect to itself/ }],
  )
  const free = ['listen.workers=127.0.0.1:0', 'listen.admin=127.0.0.1:0']
  t.strictSame(problemsOf({ flags: free }), [], 'two free ports never meet')
})

test('session hosting needs the protocol that has it, and is allowed only where it is on', async (t) => {
  const entry = '{ namespace: a, serviceAccount: b, allowSessionHosting: true }'
  const trust = `k8sTrust:\n  allowedIdentities: [${entry}]\n`
  const find = (file: string) => problemsOf({ file }).map(({ path, reason }) => [path, reason])
  t.strictSame(find(`${trust}gateway: { sessionHosting: true }\n`), [])
  t.match(find(trust), [[/allowSessionHosting/, /gateway.sessionHosting is false/]])
  t.match(find(`${WORKERS}gateway: { sessionHosting: true, protocol: stream }\n`), [
    [/gateway.sessionHosting/, /gateway.protocol is not openclaw/],
  ])
  const header = 'k8sTrust: { credentialHeader: Authorization }'
  t.match(find(header), [[/credentialHeader/, /already has another meaning/]])
})
