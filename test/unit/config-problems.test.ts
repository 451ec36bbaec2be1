/** Problems of a configuration are reported with a place and a hint, and quote no value. */

import { test } from 'tap'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { ConfigError } from '@openclaw-k8s/auth-sidecar/config/config-error.ts'
import { FILE, load, ORIGINAL, problemsOf, WORKERS } from '../kit/config-sources.ts'

test('unknown keys are problems with place and the nearest known name', async (t) => {
  const cases: readonly (readonly [file: string, path: string, where: string, hint?: string])[] = [
    ['k8strust: {}\n', 'k8strust', '1:1', 'Did you mean k8sTrust?'],
    ['review:\n  cacheTTL: 3s\n', 'review.cacheTTL', '2:3', 'Did you mean cacheTtl?'],
    ['review:\n  timeoutt: 3s\n', 'review.timeoutt', '2:3', 'Did you mean timeout?'],
    ['cacheTtl: 3s\n', 'cacheTtl', '1:1', 'Did you mean review.cacheTtl?'],
    ['xyzzy: 3\n', 'xyzzy', '1:1'],
    ['gateway: { auth: { token: hunter2 } }', 'gateway.auth.token', '1:20', 'Do not put secrets'],
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

test('unknown keys are shortened and made safe to print', async (t) => {
  const [first] = problemsOf({ file: `${WORKERS}"\\e[31m${'x'.repeat(500)}": 1` })
  t.match(first?.path, /^\?\[31mx+…$/)
  t.ok((first?.path.length ?? 999) < 80)
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
    { where: 'AUTH_SIDECAR_GATEWAY_PORT', reason: 'This variable does not match any option.' },
  ])
  t.match(problemsOf({ flags: ['review.timeot=3s'] }), [
    { path: 'review.timeot', hint: 'Did you mean review.timeout?' },
  ])
  t.match(problemsOf({ flags: ['drain.window'] }), [
    { path: 'drain.window', reason: 'The flag has no value.' },
  ])
  for (const flag of ['__proto__.x=1', 'constructor=1', '=1', '']) {
    t.match(problemsOf({ flags: [flag] }), [{ reason: 'This option does not exist.' }], flag)
  }
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
    { path: 'gateway.port', where: 'config.yaml:4:13', reason: /connect to itself/ },
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
