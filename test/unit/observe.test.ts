/** Every decision leaves one audit line and moves the right metric, and no client can make either grow. */

import { test } from 'tap'
import { CODES, isFault, type Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import type { Claims, Identity } from '@openclaw-k8s/auth-sidecar/identity.ts'
import { Audit } from '@openclaw-k8s/auth-sidecar/observe/audit.ts'
import { FaultLog } from '@openclaw-k8s/auth-sidecar/observe/fault-log.ts'
import type { SessionHosting } from '@openclaw-k8s/auth-sidecar/observe/metric-sources.ts'
import { createMetrics } from '@openclaw-k8s/auth-sidecar/observe/metrics.ts'
import { RecentRefusals } from '@openclaw-k8s/auth-sidecar/observe/recent-refusals.ts'
import { createRecorder } from '@openclaw-k8s/auth-sidecar/observe/recorder.ts'
import { RelaySum } from '@openclaw-k8s/auth-sidecar/lib/relay-totals.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { parseMetrics } from '../kit/parse-metrics.ts'

const CLAIMS: Claims = {
  issuer: 'https://issuer.example',
  audiences: ['openclaw-gateway'],
  issuedAt: 0,
  notBefore: 0,
  expiresAt: 3600,
  tokenId: 'jti-1',
  namespace: 'openclaw',
  serviceAccount: 'openclaw-worker',
  serviceAccountUid: 'sa-uid',
  podName: 'worker-a',
  podUid: 'pod-uid',
  nodeName: 'node-1',
}
const IDENTITY: Identity = {
  namespace: 'openclaw',
  serviceAccount: 'openclaw-worker',
  podName: 'worker-a',
  podUid: 'pod-uid',
  nodeName: 'node-1',
  credentialId: 'jti-1',
  expiresAt: 3600,
}
const ADMITTED = {
  streamId: 'x-1',
  address: '10.0.0.1',
  identity: IDENTITY,
  role: 'node',
  durationMs: 5,
}
const SUBJECT = {
  namespace: 'openclaw',
  serviceAccount: 'openclaw-worker',
  podUid: 'pod-uid',
  displayName: 'worker-a',
  nodeName: 'node-1',
  credentialId: 'jti-1',
}

const MOMENTS = { notBefore: 11_000, notAfter: 12_000 }

const setUp = (isEnabled = () => true, isReported = false, hosting?: SessionHosting) => {
  const clock = new FakeClock()
  const lines: Record<string, unknown>[] = []
  const warnings: unknown[] = []
  const audit = new Audit({
    clock,
    isEnabled,
    write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>),
  })
  const metrics = createMetrics({
    version: 'test',
    namespaces: ['openclaw'],
    sources: () => ({
      readiness: async () => [{ name: 'serving' }, { name: 'gateway', objection: 'nothing there' }],
      ownTokenExpiresAt: () => 3600,
      carried: () => ({ bytesUp: 10, bytesDown: 20, messagesUp: 1, messagesDown: 2 }),
      streams: () => 3,
      connectedWorkers: () => new Map([['openclaw', 2]]),
      sessionHosting: () => hosting,
      pendingSockets: () => 4,
      cacheEntries: () => 5,
      jwksAgeMs: () => 6000,
      isReviewOnly: () => true,
      watchedPods: () => 7,
      watchStaleMs: () => 8000,
      scopes: () => [
        { kind: 'namespace', state: 'synced' },
        { kind: 'namespace', state: 'stale' },
        { kind: 'namespace', state: 'stale' },
      ],
      certificates: () => [
        ['certificate', { ...MOMENTS, faults: [], isEndingSoon: false, isFit: false }],
        ['clientCa', { ...MOMENTS, faults: [], isEndingSoon: false }],
      ],
      linesDropped: () => ({ audit: 9, log: 10 }),
    }),
  })
  const tell = (...what: unknown[]) => void warnings.push(what)
  const series = async () => parseMetrics(await metrics.register.metrics(), 'openclaw_k8s_')
  const refusals = new RecentRefusals(clock)
  const recorder = createRecorder({
    metrics,
    audit,
    refusals,
    totals: new RelaySum(),
    isSourceUnenforced: () => isReported,
    addressesOf: (podUid) => (podUid === CLAIMS.podUid ? ['10.0.0.5', 'fd00::5'] : []),
    faults: new FaultLog({ clock, log: { warn: tell, info: tell }, message: 'admission fault' }),
  })
  return { clock, lines, warnings, audit, series, recorder, refusals }
}

test('an admission and its end are one audit line each, in the original field names', async (t) => {
  const { recorder, lines, clock } = setUp()
  recorder.admitted(ADMITTED)
  recorder.closed({
    ...ADMITTED,
    code: 'completed',
    durationMs: 1500.4567,
    counts: { bytesUp: 7, bytesDown: 8, messagesUp: 1, messagesDown: 1 },
  })
  const common = {
    log: 'audit',
    timestamp: new Date(clock.now()).toISOString(),
    ...SUBJECT,
    role: 'node',
    remoteIp: '10.0.0.1',
    streamId: 'x-1',
  }
  t.same(lines, [
    { ...common, event: 'k8s-auth-success' },
    {
      ...common,
      event: 'k8s-session-closed',
      code: 'completed',
      durationSeconds: 1.5,
      bytesUp: 7,
      bytesDown: 8,
    },
  ])
})

test('refusals of a pod after the signature become one line per second and code, with its identity', async (t) => {
  const { recorder, lines, clock, series } = setUp()
  const refuse = (code: Code, claims: Claims, address = '10.0.0.1') => {
    const attempt = { hasCredential: true, claimed: claims, signed: claims } as const
    recorder.refused({ code, address, attempt, durationMs: 1 })
  }
  const other = { ...CLAIMS, podUid: 'other-uid', podName: 'worker-b' }
  for (let n = 0; n < 1000; n += 1) {
    refuse('too_many_streams_of_pod', CLAIMS)
    refuse('review_rejected', CLAIMS)
    refuse('too_many_streams_of_pod', other)
  }
  refuse('too_many_streams_of_pod', CLAIMS, '10.0.0.2')
  t.equal(lines.length, 0)
  clock.advance(1000)
  t.match(lines, [
    { event: 'k8s-auth-failed', code: 'too_many_streams_of_pod', count: 1000, ...SUBJECT },
    { code: 'review_rejected', count: 1000, ...SUBJECT },
    { code: 'too_many_streams_of_pod', count: 1000, displayName: 'worker-b', remoteIp: '10.0.0.1' },
    { code: 'too_many_streams_of_pod', count: 1, displayName: 'worker-a', remoteIp: '10.0.0.2' },
  ])
  for (const line of lines) t.notOk('claimed' in line)
  const counted = await series()
  t.equal(counted.get('auth_failures_total{kind="fault",code="too_many_streams_of_pod"}'), 2001)
  t.equal(counted.get('auth_failures_total{kind="denial",code="review_rejected"}'), 1000)
  refuse('too_many_streams_of_pod', CLAIMS)
  clock.advance(1000)
  t.equal(lines.length, 5, 'the next second has its own line')
  t.equal(clock.pending, 0)
})

test('a line for several addresses of an IPv6 network says so', async (t) => {
  const { recorder, lines, audit } = setUp()
  const refuse = (address: string) =>
    recorder.refused({ code: 'token_expired', address, attempt: {}, durationMs: 1 })
  for (let n = 1; n < 100; n += 1) refuse(`2001:db8:1:2::${n}`)
  for (let n = 0; n < 9; n += 1) refuse('2001:db8:1:3::1')
  audit.flush()
  t.strictSame(
    lines.map(({ remoteIp, remotePrefix, count }) => [remoteIp, remotePrefix, count]),
    [
      ['2001:db8:1:2::1', '2001:db8:1:2::/64', 99],
      ['2001:db8:1:3::1', undefined, 9],
    ],
  )
})

test('unsigned claims are logged under claimed, shortened, and never as the subject', async (t) => {
  const { recorder, lines, audit } = setUp()
  const claimed = { ...CLAIMS, podName: 'p'.repeat(250) }
  const attempt = { hasCredential: true, claimed } as const
  recorder.refused({ code: 'signature_invalid', address: '10.0.0.1', attempt, durationMs: 1 })
  t.equal(lines.length, 0, 'it waits for others like it')
  audit.flush()
  const { namespace, serviceAccount } = CLAIMS
  t.strictSame(lines[0]?.['claimed'], { namespace, serviceAccount, podName: 'p'.repeat(64) })
  t.match(lines[0], { unverified: true, count: 1 })
  for (const name of ['alsoClaimed', 'otherClaims']) t.notOk(name in lines[0]!, name)
  for (const name of Object.keys(SUBJECT)) t.notOk(name in lines[0]!, name)
})

test('a flood becomes one line per second, code and address, with a count', async (t) => {
  const { recorder, lines, clock } = setUp()
  const refuse = (code: Code, address: string) =>
    recorder.refused({ code, address, attempt: { hasCredential: true }, durationMs: 1 })
  for (let n = 0; n < 1000; n += 1) {
    refuse('token_expired', '10.0.0.1')
    refuse('token_malformed', '10.0.0.1')
    refuse('token_expired', '10.0.0.2')
  }
  clock.advance(999)
  t.equal(lines.length, 0)
  clock.advance(1)
  t.strictSame(
    lines.map(({ code, remoteIp, count }) => [code, remoteIp, count]),
    [
      ['token_expired', '10.0.0.1', 1000],
      ['token_malformed', '10.0.0.1', 1000],
      ['token_expired', '10.0.0.2', 1000],
    ],
  )
  clock.advance(10_000)
  t.equal(lines.length, 3, 'nothing is written twice')
  t.equal(clock.pending, 0)
})

test('a line shows three distinct claims and counts the refusals that claim something else', async (t) => {
  const { recorder, lines, audit } = setUp()
  const refuse = (name: number) => {
    const claimed = { ...CLAIMS, podName: `worker-${name}`, podUid: `uid-${name}` }
    const attempt = { hasCredential: true, claimed } as const
    recorder.refused({ code: 'token_expired', address: '10.0.0.1', attempt, durationMs: 1 })
  }
  for (const name of [1, 2, 1, 3, 2, 4, 5, 4, 1]) refuse(name)
  const attempt = { hasCredential: true } as const
  recorder.refused({ code: 'token_expired', address: '10.0.0.1', attempt, durationMs: 1 })
  audit.flush()
  const claimOf = (name: number) => ({
    namespace: 'openclaw',
    serviceAccount: 'openclaw-worker',
    podName: `worker-${name}`,
  })
  t.equal(lines.length, 1)
  const { claimed, alsoClaimed, otherClaims, count } = lines[0]!
  t.strictSame(
    { claimed, alsoClaimed, otherClaims, count },
    { claimed: claimOf(1), alsoClaimed: [claimOf(2), claimOf(3)], otherClaims: 3, count: 10 },
  )
})

test('a token without a pod is told by its ServiceAccount', async (t) => {
  const { recorder, lines, audit } = setUp()
  const claimed = { namespace: 'openclaw', serviceAccount: 'openclaw-worker' }
  const attempt = { hasCredential: true, claimed } as const
  recorder.refused({ code: 'token_not_pod_bound', address: '10.0.0.1', attempt, durationMs: 1 })
  audit.flush()
  t.strictSame(lines[0]?.['claimed'], claimed)
})

test("a line about a foreign address shows the pod's own, proven or not", async (t) => {
  const { recorder, lines, audit } = setUp()
  const refuse = (code: Code, attempt: Parameters<typeof recorder.refused>[0]['attempt']) =>
    recorder.refused({ code, address: '10.0.0.66', attempt, durationMs: 1 })
  for (let n = 0; n < 100; n += 1) {
    refuse('source_address_mismatch', { claimed: CLAIMS, signed: CLAIMS })
  }
  refuse('source_address_mismatch', { claimed: CLAIMS })
  refuse('pod_terminating', { claimed: CLAIMS, signed: CLAIMS })
  audit.flush()
  const counts = { bytesUp: 0, bytesDown: 0, messagesUp: 0, messagesDown: 0 }
  recorder.closed({ ...ADMITTED, code: 'source_address_mismatch', counts })
  const podAddresses = ['10.0.0.5', 'fd00::5']
  t.match(lines, [
    { ...SUBJECT, remoteIp: '10.0.0.66', podAddresses, count: 100 },
    { claimed: { podName: 'worker-a', podAddresses }, count: 1 },
    { code: 'pod_terminating' },
    { event: 'k8s-session-closed', podAddresses },
  ])
  t.notOk('podAddresses' in lines[2]!, 'only where the address decides')
})

test('the groups of a second are bounded, and nothing is lost from the count', async (t) => {
  const { recorder, lines, audit } = setUp()
  const total = 5000
  for (let n = 0; n < total; n += 1) {
    const address = `10.${n >> 16}.${(n >> 8) & 255}.${n & 255}`
    recorder.refused({ code: 'token_expired', address, attempt: {}, durationMs: 1 })
  }
  recorder.refused({ code: 'token_malformed', address: '10.9.9.9', attempt: {}, durationMs: 1 })
  audit.flush()
  t.equal(lines.length, 100)
  const sum = lines.reduce((all, { count }) => all + Number(count), 0)
  t.equal(sum, total + 1)
  const rest = lines.filter(({ remoteIp }) => remoteIp === undefined)
  t.equal(rest.length, 1, 'the line for the rest names no address')
  t.strictSame(rest[0]?.['codes'], { token_expired: 4901, token_malformed: 1 })
  t.equal(rest[0]?.['count'], 4902)
})

test('where the source address is not enforced, every line says so', async (t) => {
  const { recorder, lines, audit } = setUp(() => true, true)
  recorder.admitted(ADMITTED)
  recorder.refused({ code: 'token_expired', address: 'x', attempt: {}, durationMs: 1 })
  audit.flush()
  t.match(lines, [{ sourceAddress: 'report' }, { sourceAddress: 'report' }])
  const enforced = setUp()
  enforced.recorder.admitted(ADMITTED)
  t.notOk('sourceAddress' in enforced.lines[0]!)
})

test('a disabled audit writes nothing', async (t) => {
  const { recorder, lines, audit, clock } = setUp(() => false)
  recorder.admitted(ADMITTED)
  recorder.refused({ code: 'token_expired', address: 'x', attempt: {}, durationMs: 1 })
  audit.flush()
  t.equal(lines.length, 0)
  t.equal(clock.pending, 0)
})

test('every code of the table starts at 0, with its kind', async (t) => {
  const { series } = setUp()
  const values = await series()
  for (const code of Object.keys(CODES) as Code[]) {
    const kind = isFault(code) ? 'fault' : 'denial'
    t.equal(values.get(`auth_failures_total{kind="${kind}",code="${code}"}`), 0, code)
    t.equal(values.get(`upgrades_refused_total{code="${code}"}`), 0, code)
    t.equal(values.get(`stream_closes_total{code="${code}"}`), 0, code)
  }
  const zeroes = [
    'auth_attempts_total{result="success"}',
    'auth_attempts_total{result="failed"}',
    'stream_closes_total{code="completed"}',
    'sessions_active{namespace="openclaw"}',
    'own_credential_errors_total',
    'jwks_fetches_total{outcome="ok"}',
    'jwks_fetches_total{outcome="failed"}',
    'config_reloads_total{outcome="ok"}',
    'config_reloads_total{outcome="failed"}',
    ...['hit', 'miss', 'negative', 'shared'].map(
      (outcome) => `verdict_cache_lookups_total{outcome="${outcome}"}`,
    ),
    ...['authenticated', 'rejected', 'fault'].map(
      (outcome) => `token_review_duration_seconds_count{outcome="${outcome}"}`,
    ),
  ]
  for (const name of zeroes) t.equal(values.get(name), 0, name)
})

test('values read on scrape are the current ones', async (t) => {
  const { series } = setUp()
  await series()
  const values = await series()
  t.equal(values.get('stream_bytes_total{direction="up"}'), 10, 'a total is not added up twice')
  t.equal(values.get('stream_bytes_total{direction="down"}'), 20)
  t.equal(values.get('stream_messages_total{direction="down"}'), 2)
  t.equal(values.get('streams'), 3)
  t.equal(values.get('pending_sockets'), 4)
  t.equal(values.get('verdict_cache_entries'), 5)
  t.equal(values.get('jwks_age_seconds'), 6)
  t.equal(values.get('watched_pods'), 7)
  t.equal(values.get('watch_stale_seconds'), 8)
  t.equal(values.get('ready{check="serving"}'), 1)
  t.equal(values.get('ready{check="gateway"}'), 0)
  t.equal(values.get('own_token_expiry_timestamp_seconds'), 3600)
  t.equal(values.get('log_lines_dropped_total{output="audit"}'), 9)
  t.equal(values.get('log_lines_dropped_total{output="log"}'), 10)
  t.equal(values.get('build_info{version="test"}'), 1)
  const ofCertificates = (name: string, file: string) =>
    values.get(`certificate_${name}_timestamp_seconds{file="${file}"}`)
  t.equal(ofCertificates('not_before', 'clientCa'), 11)
  t.equal(ofCertificates('expiry', 'clientCa'), 12)
  t.equal(values.get('certificate_fit{file="certificate"}'), 0)
  t.equal(values.get('certificate_fit{file="clientCa"}'), undefined, 'CAs have no names')
})

test('workers are counted by namespace, and a named namespace without one has 0', async (t) => {
  const values = await setUp().series()
  t.equal(values.get('connected_workers{namespace="openclaw"}'), 2)
})

test('slots are absent while the gateway does not tell, and 0 where it tells of none', async (t) => {
  const isHosting = (name: string) => name.startsWith('session_')
  const untold = await setUp().series()
  t.strictSame([...untold.keys()].filter(isHosting), [])

  const slots = new Map([['other', { free: 3, used: 1 }]])
  const forbidden = new Map([['other', 2]])
  const told = await setUp(undefined, false, { slots, forbidden }).series()
  t.strictSame(
    [...told].filter(([name]) => isHosting(name)),
    [
      ['session_slots{namespace="openclaw",state="free"}', 0],
      ['session_slots{namespace="openclaw",state="used"}', 0],
      ['session_slots{namespace="other",state="free"}', 3],
      ['session_slots{namespace="other",state="used"}', 1],
      ['session_hosting_forbidden{namespace="openclaw"}', 0],
      ['session_hosting_forbidden{namespace="other"}', 2],
    ],
  )
})

test('attempts with and without a credential are counted separately', async (t) => {
  const { series, recorder, warnings } = setUp()
  const fault = new Fault('review_unavailable', 'down')
  recorder.admitted(ADMITTED)
  recorder.refused({ code: 'upgrade_malformed', address: 'x', attempt: {}, durationMs: 1 })
  recorder.refused({
    code: 'token_expired',
    address: 'x',
    attempt: { hasCredential: true },
    durationMs: 1,
  })
  t.equal(warnings.length, 0)
  recorder.refused({
    code: 'review_unavailable',
    address: 'x',
    attempt: { hasCredential: true, claimed: CLAIMS, signed: CLAIMS, fault },
    durationMs: 1,
  })
  t.equal(warnings.length, 1, 'a fault is logged')
  const values = await series()
  t.equal(values.get('auth_attempts_total{result="success"}'), 1)
  t.equal(values.get('auth_attempts_total{result="failed"}'), 2)
  t.equal(values.get('auth_failures_total{kind="denial",code="token_expired"}'), 1)
  t.equal(values.get('auth_failures_total{kind="fault",code="review_unavailable"}'), 1)
  t.equal(values.get('upgrades_refused_total{code="upgrade_malformed"}'), 1)
  t.equal(values.get('auth_failures_total{kind="denial",code="upgrade_malformed"}'), 0)
  t.equal(values.get('sessions_active{namespace="openclaw"}'), 1)
})

test('no input of a client becomes a label or a new series', async (t) => {
  const { series, recorder } = setUp()
  const before = [...(await series()).keys()]
  for (const code of Object.keys(CODES) as Code[]) {
    const claimed = { ...CLAIMS, namespace: 'evil-namespace', podName: 'evil-pod' }
    const attempt = { hasCredential: true, claimed, role: 'evil-role' } as const
    recorder.refused({ code, address: '10.9.9.9', attempt, durationMs: 1 })
    recorder.refused({ code, address: '10.9.9.9', attempt: { claimed }, durationMs: 1 })
  }
  const after = [...(await series()).keys()]
  t.strictSame(after, before)
  t.notMatch(after.join('\n'), /evil|10\.9/)
})

test('an outage is logged when it begins and when it is over, not once per worker', async (t) => {
  const { recorder, warnings, clock } = setUp()
  const refuse = (code: 'review_unavailable' | 'gateway_unreachable') =>
    recorder.refused({
      code,
      address: '127.0.0.1',
      attempt: { hasCredential: true, fault: new Fault(code, 'down') },
      durationMs: 1,
    })
  for (let n = 0; n < 100; n += 1) {
    refuse('review_unavailable')
    clock.advance(5000)
  }
  refuse('gateway_unreachable')
  t.match(warnings, [
    [{ code: 'review_unavailable', address: '127.0.0.1' }, 'admission fault'],
    [{ code: 'gateway_unreachable' }, 'admission fault'],
  ])
  clock.advance(55_000)
  t.match(warnings[2], [
    { code: 'review_unavailable', count: 100, lengthMs: 495_000 },
    'admission fault: is over',
  ])
  clock.advance(5000)
  t.equal(warnings.length, 4)
  t.equal(clock.pending, 0)
  refuse('review_unavailable')
  t.equal(warnings.length, 5, 'the next one is told again')
})
