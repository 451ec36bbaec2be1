/** What check-config, print-config and schema print, and with which code they exit. */

import { execFileSync } from 'node:child_process'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { parse } from 'yaml'
import { run as checkConfig } from '@openclaw-k8s/auth-sidecar/commands/check-config.ts'
import type { CommandContext } from '@openclaw-k8s/auth-sidecar/commands/command.ts'
import { run as printConfig } from '@openclaw-k8s/auth-sidecar/commands/print-config.ts'
import { run as schema } from '@openclaw-k8s/auth-sidecar/commands/schema.ts'
import { checkFiles, readFileBounded } from '@openclaw-k8s/auth-sidecar/config/files.ts'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { maskSecrets } from '@openclaw-k8s/auth-sidecar/config/mask.ts'
import { createAuthority } from '../kit/authority.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const WORKERS =
  'k8sTrust:\n  allowedIdentities: [{ namespace: openclaw, serviceAccount: worker }]\n'
const JWT = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl'

type Run = { readonly argv?: readonly string[]; readonly env?: Record<string, string> }

/** Runs a command over files that exist only here. */
const runWith = async (
  command: (context: CommandContext) => Promise<number>,
  files: Readonly<Record<string, string>>,
  { argv = ['--config', 'config.yaml'], env = {} }: Run = {},
) => {
  const out: string[] = []
  const err: string[] = []
  const exitCode = await command({
    argv,
    env,
    stdout: { write: (text) => out.push(text) },
    stderr: { write: (text) => err.push(text) },
    readFile: (path) => {
      const text = files[path]
      if (text === undefined) throw Object.assign(new Error('absent'), { code: 'ENOENT' })
      return text
    },
    // The certificates of the tests are valid now.
    clock: new FakeClock(Date.now()),
    interfaces: () => ({}),
  })
  return { exitCode, stdout: out.join(''), stderr: err.join('') }
}

test('check-config says OK in one line, and prints warnings separately', async (t) => {
  t.strictSame(await runWith(checkConfig, { 'config.yaml': WORKERS }), {
    exitCode: 0,
    stdout: 'OK: 1 identity allowed\n',
    stderr: '',
  })
  const env = {
    AUTH_SIDECAR_K8S_TRUST_ALLOWED_IDENTITIES:
      '[{ namespace: "*", serviceAccount: "*" }, { namespace: a, serviceAccount: b }]',
  }
  t.match(await runWith(checkConfig, {}, { argv: [], env }), {
    exitCode: 0,
    stdout: 'OK: 2 identities allowed\n',
    stderr: /^Warning: k8sTrust\.allowedIdentities\[0\]: [^\n]*\n$/,
  })
  t.match(await runWith(checkConfig, { 'config.yaml': 'k8sTrust: { enabled: false }' }), {
    exitCode: 0,
    stdout: /^OK: trust is disabled/,
  })
})

test('roles that the protocol does not have are a warning', async (t) => {
  const warningsOf = async (roles: string, protocol: string) => {
    const entry = `{ namespace: a, serviceAccount: b, allowedRoles: [${roles}] }`
    const text = `k8sTrust: { allowedIdentities: [${entry}] }\ngateway: { protocol: ${protocol} }`
    const { exitCode, stderr } = await runWith(checkConfig, { 'config.yaml': text })
    t.equal(exitCode, 0)
    return stderr
  }
  t.match(
    await warningsOf('operator', 'openclaw'),
    /^Warning: k8sTrust\.allowedIdentities\[0\]\.allowedRoles: .* only be a node, .* lists operator\. Every worker of this entry is refused with role_not_allowed\. Write \[node\]/,
  )
  t.match(
    await warningsOf('node, operator', 'openclaw'),
    /lists operator\. The other roles have no/,
  )
  t.equal(await warningsOf('node', 'openclaw'), '')
  t.equal(await warningsOf('operator', 'stream'), '')
})

test('a bad configuration exits 78 and says why on stderr alone', async (t) => {
  for (const command of [checkConfig, printConfig]) {
    t.match(await runWith(command, { 'config.yaml': 'review: { timeout: 1h }' }), {
      exitCode: 78,
      stdout: /^$/,
      stderr: /review\.timeout \(config\.yaml:1:20\): /,
    })
    t.match(await runWith(command, {}), { exitCode: 78, stderr: /\(config\.yaml\): .* not exist/ })
  }
})

test('a wrong command line exits 64 and shows the usage', async (t) => {
  const wrong = [['--confg', 'x'], ['config.yaml'], ['--config'], ['--set']]
  for (const argv of wrong) {
    for (const command of [checkConfig, printConfig, schema]) {
      const result = await runWith(command, { 'config.yaml': WORKERS }, { argv })
      t.match(
        result,
        { exitCode: 64, stdout: /^$/, stderr: /\nUsage: auth-sidecar / },
        argv.join(' '),
      )
    }
  }
})

test('--set may be repeated', async (t) => {
  const argv = ['--config', 'config.yaml', '--set', 'drain.window=3s', '--set=log.level=warn']
  const { stdout } = await runWith(printConfig, { 'config.yaml': WORKERS }, { argv })
  t.match(parse(stdout), { drain: { window: '3s' }, log: { level: 'warn' } })
})

test('print-config prints what loads as the same configuration again', async (t) => {
  const documents = [
    WORKERS,
    'k8sTrust: { enabled: false }',
    `${WORKERS}  maxTokenLifetime: 90001ms
listen: { workers: "[::1]:0", tls: { certFile: a, keyFile: b } }
limits: { messageBytes: 1025, preAuthFrameBytes: 2KiB, failuresPerAddress: 0 }
kubernetes: { issuers: [https://a] }
`,
    `gateway: { port: 5, auth: { k8sTrust: { enabled: false } } }`,
  ]
  const load = (text: string) =>
    loadConfig({ file: 'f', env: {}, flags: [], readFile: () => text }).config
  for (const text of documents) {
    const { exitCode, stdout } = await runWith(printConfig, { 'config.yaml': text })
    t.equal(exitCode, 0)
    t.strictSame(load(stdout), load(text))
  }
})

test('print-config masks what was pasted into the wrong place', async (t) => {
  const text = `${WORKERS}  audiences: [${JWT}]
gateway: { url: "ws://127.0.0.1:18789/${JWT}" }
`
  const { stdout } = await runWith(printConfig, { 'config.yaml': text })
  t.notMatch(stdout, 'eyJ')
  t.match(parse(stdout), {
    gateway: {
      url: 'ws://127.0.0.1:18789/***',
      auth: { secretFile: '/etc/openclaw-gateway/token' },
    },
    k8sTrust: {
      audiences: ['***'],
      maxTokenLifetime: '25h',
      onTokenExpiry: 'keep-while-pod-lives',
    },
  })
})

test('secrets are masked by key, by shape and in URLs; files and words are not', async (t) => {
  t.strictSame(
    maskSecrets({
      token: 'a',
      saToken: 3,
      password: ['a'],
      deviceSeed: { deep: 'a' },
      tokenFile: '/a',
      tokens: 'a',
      list: [`x ${JWT} y`],
      url: 'see https://user:pa@ss@host/path?a=b@c',
      mail: 'a@b.example',
    }),
    {
      token: '***',
      saToken: '***',
      password: '***',
      deviceSeed: '***',
      tokenFile: '/a',
      tokens: 'a',
      list: ['x *** y'],
      url: 'see https://***@host/path?a=b@c',
      mail: 'a@b.example',
    },
  )
})

test('schema prints a closed JSON Schema of the document', async (t) => {
  const { exitCode, stdout } = await runWith(schema, {}, { argv: [] })
  t.equal(exitCode, 0)
  t.match(JSON.parse(stdout), {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    $id: /^urn:/,
    title: String,
    additionalProperties: false,
    properties: {
      review: {
        additionalProperties: false,
        properties: { timeout: { type: 'string', default: '3s', description: /10ms to 30s/ } },
      },
      limits: { properties: { messageBytes: { default: '25MiB' }, streams: { maximum: 1e6 } } },
      listen: { properties: { workers: { type: 'string', default: '[::]:18443' } } },
      k8sTrust: { properties: { allowedIdentities: { type: 'array', minItems: 1 } } },
    },
  })
})

test('explicitly named files', async (t) => {
  const authority = await createAuthority()
  const pair = await authority.issue({ commonName: 'a', hosts: ['localhost'] })
  const other = await authority.issue({ commonName: 'b', hosts: ['localhost'] })
  const text = `${WORKERS}listen: { tls: { certFile: c.pem, keyFile: k.pem, clientCaFile: ca.pem } }
kubernetes: { caFile: kca.pem, tokenFile: t }
gateway: { auth: { secretFile: s }, deviceSeedFile: d }
`
  const good = {
    'config.yaml': text,
    'c.pem': `${pair.cert}\n${authority.cert}`,
    'k.pem': pair.key,
    'ca.pem': authority.cert,
    'kca.pem': `# The cluster's CA.\n${authority.cert}`,
    t: 'token\n',
    s: 'secret\n',
    d: 'a seed of 16 bytes, or more',
  }
  const paths = {
    'c.pem': 'listen.tls.certFile',
    'k.pem': 'listen.tls.keyFile',
    'ca.pem': 'listen.tls.clientCaFile',
    'kca.pem': 'kubernetes.caFile',
    t: 'kubernetes.tokenFile',
    s: 'gateway.auth.secretFile',
    d: 'gateway.deviceSeedFile',
  }

  t.test('are read and found good', async (it) => {
    it.match(await runWith(checkConfig, good), { exitCode: 0, stderr: /^$/ })
  })

  t.test('exit 78 with path, reason and hint when one is missing or empty', async (it) => {
    for (const [file, path] of Object.entries(paths)) {
      const { [file]: _, ...without } = good as Record<string, string>
      const absent = await runWith(checkConfig, without)
      it.equal(absent.exitCode, 78)
      it.equal(
        absent.stderr,
        `The configuration has a problem:\n  ${path} (${file}): The file does not exist.\n` +
          '    Hint: Mount the file there, or correct the path.\n',
      )
      const empty = await runWith(checkConfig, { ...good, [file]: '\n' })
      it.match(
        empty,
        { exitCode: 78, stdout: /^$/, stderr: `  ${path} (${file}): ` },
        `empty ${file}`,
      )
    }
  })

  t.test('must hold what their option needs', async (it) => {
    const broken = pair.cert.replace(/\n[A-Za-z0-9+/]{20}/, '\nAAAAAAAAAAAAAAAAAAAA')
    const cases: readonly (readonly [file: string, text: string, reason: RegExp])[] = [
      ['c.pem', broken, /not a PEM file with certificates/],
      ['c.pem', pair.key, /not a PEM file with certificates/],
      ['c.pem', `${pair.cert}\n${broken}`, /not a PEM file with certificates/],
      ['ca.pem', broken, /not a PEM file with certificates/],
      ['kca.pem', 'hunter2', /not a PEM file with certificates/],
      ['k.pem', pair.cert, /not a PEM private key/],
      ['k.pem', other.key, /private key does not match the certificate/],
      [
        'd',
        'too short',
        /deviceSeedFile \(d\): The seed is shorter than 16 bytes\.\n {4}Hint: Write 32/,
      ],
    ]
    for (const [file, content, reason] of cases) {
      const result = await runWith(checkConfig, { ...good, [file]: content })
      it.match(result, { exitCode: 78, stderr: reason }, file)
      it.notMatch(result.stderr, 'hunter2', 'no content is quoted')
      it.notMatch(result.stderr, 'PRIVATE')
    }
  })

  t.test(
    'must hold certificates that are fit: in their time, for servers, for the names',
    async (it) => {
      const hosts = ['localhost']
      const day = (days: number) => new Date(Date.now() + days * 86_400_000)
      const old = { notBefore: day(-90), notAfter: day(-1) }
      const cases = [
        [{ hosts, ...old }, 'certFile', /CN=c expired at \d.*Z\.\n    Hint: Renew/],
        [
          { hosts, notBefore: day(1) },
          'certFile',
          /CN=c is not valid before \d.*Z\.\n    Hint: Comp/,
        ],
        [{ hosts, usage: 'client' }, 'certFile', /not for servers: .*\n    Hint: Issue it with/],
        [{ hosts: ['b'] }, 'certFile', /not for localhost; it has DNS:b\.\n    Hint: Issue it/],
      ] as const
      const named = text.replace('certFile:', 'serverNames: [localhost], certFile:')
      for (const [request, option, reason] of cases) {
        const { cert, key } = await authority.issue({ commonName: 'c', ...request })
        const files = { ...good, 'config.yaml': named, 'c.pem': cert, 'k.pem': key }
        const { exitCode, stderr } = await runWith(checkConfig, files)
        it.equal(exitCode, 78)
        it.match(stderr, reason)
        it.match(stderr, `  listen.tls.${option} (c.pem): The certificate `)
      }
      const past = await createAuthority('past', old)
      for (const [file, option] of [
        ['ca.pem', 'listen.tls.clientCaFile'],
        ['kca.pem', 'kubernetes.caFile'],
      ] as const) {
        const { exitCode, stderr } = await runWith(checkConfig, { ...good, [file]: past.cert })
        it.equal(exitCode, 78)
        it.match(stderr, `${option} (${file}): The certificate of CN=past expired at`)
      }
    },
  )

  t.test('that expire soon are a warning', async (it) => {
    const day = (days: number) => new Date(Date.now() + days * 86_400_000)
    const dates = { notBefore: day(-85), notAfter: day(5) }
    const { cert, key } = await authority.issue({ commonName: 'c', ...dates })
    const outcome = await runWith(checkConfig, { ...good, 'c.pem': cert, 'k.pem': key })
    it.match(outcome, {
      exitCode: 0,
      stderr:
        /^Warning: listen\.tls\.certFile \(c\.pem\): The certificate expires soon, at .*Z\.\n$/,
    })
  })

  t.test('are distinguished from defaults, which need not exist yet', async (it) => {
    const load = (document: string) =>
      loadConfig({ file: 'f', env: {}, flags: [], readFile: () => document })
    const absent = () => {
      throw Object.assign(new Error('absent'), { code: 'EACCES' })
    }
    const byDefault = load(WORKERS)
    it.strictSame(checkFiles(byDefault.config, byDefault.explicitPaths, absent), [])
    const named = load(`${WORKERS}gateway: { deviceSeedFile: /etc/auth-sidecar/device-seed }`)
    it.match(checkFiles(named.config, named.explicitPaths, absent), [
      { path: 'gateway.deviceSeedFile', reason: /permission denied/ },
    ])
  })
})

test('files of a real process are read up to 1 MiB', async (t) => {
  const directory = t.testdir({
    small: 'grüß',
    big: 'x'.repeat(1_048_577),
    full: 'x'.repeat(1_048_576),
  })
  t.equal(readFileBounded(join(directory, 'small')), 'grüß')
  t.equal(readFileBounded(join(directory, 'full')).length, 1_048_576)
  t.throws(() => readFileBounded(join(directory, 'big')), /larger than 1 MiB/)
  t.throws(() => readFileBounded('/dev/zero'), /larger than 1 MiB/)
  const pipe = join(directory, 'pipe')
  execFileSync('mkfifo', [pipe])
  t.throws(() => readFileBounded(pipe), /a pipe, not a file/, 'and nobody waits for its writer')
  const run = (file: string) => {
    try {
      loadConfig({ file, env: {}, flags: [], readFile: readFileBounded })
      return 'loaded'
    } catch (error) {
      return String(error)
    }
  }
  t.match(run(join(directory, 'big')), /The file is larger than 1 MiB/)
  t.match(run(directory), /This is a directory/)
  const locked = join(directory, 'locked')
  writeFileSync(locked, '')
  chmodSync(locked, 0o000)
  // Root may read everything, so only others see the permission at work.
  t.match(run(locked), process.getuid?.() === 0 ? /allow-list/ : /permission denied/)
})
