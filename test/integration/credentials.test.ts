/** A worker shows exactly one credential, in one of four places, and it appears nowhere else. */

import tap, { test } from 'tap'
import { CODES, type Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { startRig, type Rig } from '../kit/rig.ts'
import { connectInBand } from '../kit/worker-client.ts'

const SUBPROTOCOL = 'base64url.bearer.authorization.k8s.io.'
const NO_RATE_LIMIT = 'limits.failuresPerAddress=0'

const rig = await startRig({ set: [NO_RATE_LIMIT, 'k8sTrust.inBandCredentials=false'] })
tap.teardown(() => rig.stop())
const pod = rig.createPod()
const token = rig.mint({ pod })

const ask = async (at: Rig, extra: readonly string[], path = '/') => {
  const answer = await rawUpgrade({
    port: at.port,
    localAddress: '127.0.0.11',
    lines: upgradeLines(path, extra),
  })
  answer.socket.destroy()
  const { error } = JSON.parse(answer.body || '{}') as { error?: { type: string; message: string } }
  return { ...answer, code: error?.type, message: error?.message }
}

const inSubprotocol = (text: string): string =>
  `Sec-WebSocket-Protocol: ${SUBPROTOCOL}${Buffer.from(text).toString('base64url')}`

const CARRIERS: Readonly<Record<string, (text: string) => string>> = {
  Authorization: (text) => `Authorization: Bearer ${text}`,
  'the credential header': (text) => `X-OpenClaw-SA-Token: ${text}`,
  'CF-Access-Client-Secret': (text) => `CF-Access-Client-Secret: ${text}`,
  'a subprotocol': inSubprotocol,
}

test('each carrier of a credential lets a worker in', async (t) => {
  for (const [name, show] of Object.entries(CARRIERS)) {
    t.equal((await ask(rig, [show(token)])).status, 101, name)
  }
  t.equal((await ask(rig, [`authorization: bEARER   ${token}`])).status, 101, 'RFC 9110 §11.1')
})

test('two credentials are refused, in two carriers or repeated in one', async (t) => {
  const before = await rig.metrics()
  const pairs = Object.values(CARRIERS).flatMap((one) =>
    Object.values(CARRIERS).map((other) => [one(token), other(`${token}x`)] as const),
  )
  for (const pair of pairs) {
    const answer = await ask(rig, pair)
    t.same([answer.status, answer.code], [400, 'credential_repeated'], pair.join(' and '))
  }
  const twice = await ask(rig, [`Authorization: Bearer ${token}`, `Authorization: Bearer ${token}`])
  t.equal(twice.code, 'credential_repeated', 'the same one twice')
  const spare = await ask(rig, [`Authorization: Bearer ${token}`, 'X-OpenClaw-SA-Token:'])
  t.equal(spare.code, 'credential_repeated', 'an empty second one')
  const series = 'openclaw_k8s_auth_failures_total{kind="denial",code="credential_repeated"}'
  const after = await rig.metrics()
  t.equal((after.get(series) ?? 0) - (before.get(series) ?? 0), pairs.length + 2, 'all counted')
})

test('a token in the query string is refused under any name, even percent-encoded', async (t) => {
  const encoded = Buffer.from(token).toString('hex').replaceAll(/../g, '%$&')
  for (const query of [
    `token=${token}`,
    `access_token=${token}`,
    `x=1&anything[]=${token}&y=2`,
    token,
    `a=Bearer%20${token}`,
    `a=${encoded}`.slice(0, 3000),
    `a=${token.replaceAll('.', '%2E')}`,
    `a=${token.replace('eyJ', '%65yJ')}`,
    `a?b=${token}`,
  ]) {
    for (const extra of [[], [`Authorization: Bearer ${token}`]]) {
      const answer = await ask(rig, extra, `/?${query}`)
      t.same([answer.status, answer.code], [400, 'credential_in_query'], query.slice(0, 40))
    }
  }
  const harmless = await ask(rig, [`Authorization: Bearer ${token}`], '/?token=none&v=1.2.3')
  t.equal(harmless.status, 101, 'another query is accepted')
})

test('a malformed credential is refused by its form', async (t) => {
  const cases: readonly (readonly [Code, string])[] = [
    ['credential_malformed', `Authorization: Basic ${Buffer.from('a:b').toString('base64')}`],
    ['credential_malformed', 'Authorization: Bearer'],
    ['credential_malformed', `Authorization: ${token}`],
    ['credential_malformed', `Authorization: Bearer ${token} ${token}`],
    ['credential_malformed', `Authorization: Bearer ${token},`],
    ['credential_malformed', 'X-OpenClaw-SA-Token: with blank'],
    ['credential_malformed', 'CF-Access-Client-Secret: "quoted"'],
    ['credential_malformed', `Sec-WebSocket-Protocol: ${SUBPROTOCOL}`],
    ['credential_malformed', `Sec-WebSocket-Protocol: ${SUBPROTOCOL}YQ.Yg`],
    ['credential_malformed', inSubprotocol('not a token')],
    ['credential_too_large', `Authorization: Bearer ${'a'.repeat(8193)}`],
    ['credential_too_large', `X-OpenClaw-SA-Token: ${'a'.repeat(8193)}`],
    ['credential_too_large', inSubprotocol('a'.repeat(8193))],
    ['token_malformed', `Authorization: Bearer ${'a'.repeat(8192)}`],
    ['token_malformed', 'Authorization: Bearer a.b.c'],
  ]
  for (const [code, line] of cases) {
    const answer = await ask(rig, [line])
    t.same([answer.status, answer.code], [401, code], line.slice(0, 60))
    t.equal(answer.headers['www-authenticate'], 'Bearer')
  }
})

test('a worker without a credential is told how to show one', async (t) => {
  const answer = await ask(rig, [])
  t.same([answer.status, answer.code], [401, 'credential_missing'])
  t.equal(answer.headers['www-authenticate'], 'Bearer')
  t.equal(answer.headers['retry-after'], undefined, 'a retry would not help')
})

test('the credential header has the configured name, and the default name is then ignored', async (t) => {
  const named = await startRig({
    set: ['k8sTrust.credentialHeader=X-My-Token', 'k8sTrust.inBandCredentials=false'],
  })
  t.teardown(() => named.stop())
  const own = named.mint({ pod: named.createPod() })
  t.equal((await ask(named, [`x-my-token: ${own}`])).status, 101)
  t.equal((await ask(named, [`X-OpenClaw-SA-Token: ${own}`])).code, 'credential_missing')
})

test('the role is the only one allowed, or the one named in X-OpenClaw-Role', async (t) => {
  const several = await startRig({
    set: [
      NO_RATE_LIMIT,
      'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker, allowedRoles: [node, browser]}]',
    ],
  })
  t.teardown(() => several.stop())
  const bearer = `Authorization: Bearer ${several.mint({ pod: several.createPod() })}`
  const named = async (role: string) => {
    const arrival = several.gateway.waitForHandshake()
    const answer = await ask(several, [bearer, `X-OpenClaw-Role: ${role}`])
    return [answer.status, (await arrival).headers['x-openclaw-k8s-role']]
  }
  t.same(await named('node'), [101, 'node'])
  t.same(await named('browser'), [101, 'browser'])
  for (const [code, ...lines] of [
    ['role_missing'],
    ['role_not_allowed', 'X-OpenClaw-Role: operator'],
    ['role_not_allowed', 'X-OpenClaw-Role: NODE'],
    ['role_not_allowed', 'X-OpenClaw-Role: node, browser'],
    ['role_not_allowed', 'X-OpenClaw-Role:'],
    ['role_not_allowed', 'X-OpenClaw-Role: node', 'X-OpenClaw-Role: browser'],
  ] as const) {
    const answer = await ask(several, [bearer, ...lines])
    t.same([answer.status, answer.code], [403, code], lines.join(' and '))
  }
  const single = await ask(rig, [`Authorization: Bearer ${token}`, 'X-OpenClaw-Role: operator'])
  t.same([single.status, single.code], [403, 'role_not_allowed'], 'a single one binds as well')
  const twice = ['X-OpenClaw-Role: operator', 'X-OpenClaw-Role: node']
  const unclear = await ask(rig, [`Authorization: Bearer ${token}`, ...twice])
  t.same([unclear.status, unclear.code], [403, 'role_not_allowed'], 'and one named twice is none')
})

test('with trust disabled no worker enters, whatever it shows', async (t) => {
  const off = await startRig({ set: ['k8sTrust.enabled=false'] })
  t.teardown(() => off.stop())
  const own = off.mint({ pod: off.createPod() })
  for (const show of [...Object.values(CARRIERS), () => 'Accept: */*']) {
    const answer = await ask(off, [show(own)])
    t.same([answer.status, answer.code], [403, 'trust_disabled'])
  }
  t.equal(off.gateway.handshakes.length, 0)
  t.equal(off.api.counts.tokenReviews, 0)
  t.equal((await fetch(`${off.adminUrl}/readyz`)).status, 200, 'and it is ready all the same')
})

test('a token appears in no log, audit line, metric, answer or request to the gateway', async (t) => {
  const watched = await startRig({ set: [NO_RATE_LIMIT] })
  t.teardown(() => watched.stop())
  const known = watched.createPod()
  const good = watched.mint({ pod: known })
  const forged = watched.mint({ pod: known, key: 'forged' })
  watched.api.createServiceAccount('elsewhere', 'nobody')
  const stranger = watched.mint({ namespace: 'elsewhere', serviceAccount: 'nobody' })
  const late = watched.mint({ pod: known, expiresInS: -600 })
  const tokens = [good, forged, stranger, late]
  const answers: string[] = []
  for (const text of tokens) {
    for (const show of Object.values(CARRIERS)) {
      answers.push((await ask(watched, [show(text)])).raw)
      answers.push((await ask(watched, [show(text), show(`${text}x`)])).raw)
      answers.push((await ask(watched, [show(text), 'X-OpenClaw-Role: operator'])).raw)
    }
    answers.push((await ask(watched, [`Authorization: Basic ${text}`])).raw)
    answers.push((await ask(watched, [], `/${text}?token=${text}`)).raw)
    const frame = { type: 'connect.request', authMode: 'k8s-sa', saToken: text, role: 'node' }
    const outcome = await connectInBand({ url: watched.url, localAddress: '127.0.0.11', frame })
    answers.push(JSON.stringify(outcome, (key, value: unknown) => (key === 'socket' ? '' : value)))
    if (outcome.kind === 'message') outcome.socket.terminate()
  }
  watched.gateway.setBehavior('refuse', { connections: 1 })
  answers.push((await ask(watched, [`Authorization: Bearer ${good}`])).raw)
  await watched.sidecar.stop()

  t.ok(watched.gateway.handshakes.length > 0)
  t.ok(watched.audit.some(({ event }) => event === 'k8s-auth-success'))
  t.ok(watched.audit.some(({ event }) => event === 'k8s-auth-failed'))
  t.ok(watched.log.some((line) => line.includes('admission fault')))
  const seen = {
    log: watched.log.join(''),
    audit: JSON.stringify(watched.audit),
    gateway: JSON.stringify([watched.gateway.handshakes, watched.gateway.received]),
    answers: answers.join('\n'),
  }
  for (const [place, text] of Object.entries(seen)) {
    for (const secret of tokens) {
      // Neither the whole nor a part that could be used: claims alone are public.
      const [, claims = '', signature = ''] = secret.split('.')
      t.notOk(text.includes(signature), `no signature in ${place}`)
      t.notOk(text.includes(claims), `no claims in ${place}`)
      const carried = Buffer.from(secret).toString('base64url')
      t.notOk(text.includes(carried.slice(0, 60)), `no subprotocol in ${place}`)
    }
  }
})

test('the metrics carry neither a token nor anything else a caller chose', async (t) => {
  await ask(rig, [`Authorization: Bearer ${token}`, 'X-OpenClaw-Role: canary'], '/canary')
  const text = await (await fetch(`${rig.adminUrl}/metrics`)).text()
  for (const part of token.split('.')) t.notOk(text.includes(part))
  t.notMatch(text, /canary|worker-a|127\.0\.0\.11/)
})

test('the wording of every refusal comes from the table', async (t) => {
  rig.api.createServiceAccount('canary', 'canary')
  const stranger = rig.mint({ namespace: 'canary', serviceAccount: 'canary' })
  for (const line of [
    `Authorization: Bearer ${stranger}`,
    `Authorization: Bearer ${rig.mint({ pod, audiences: ['canary'] })}`,
    `Authorization: Bearer ${rig.mint({ pod, key: 'forged' })}`,
    `Authorization: Bearer ${rig.mint({ pod, claims: { iss: 'https://canary.example' } })}`,
    'Authorization: Bearer canary',
  ]) {
    const answer = await ask(rig, [line])
    t.ok(answer.code !== undefined && answer.code in CODES)
    t.equal(answer.message, CODES[answer.code as Code].message)
    t.notMatch(answer.raw, /canary/)
  }
})
