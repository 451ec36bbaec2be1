/** The scenarios of `npm run test:chaos`, and how their books are judged. */

import { test } from 'tap'
import { judgeAnswer, type Judged } from '../chaos/answers.ts'
import { judgeBooks, judgeOutputs, judgeRest } from '../kit/books.ts'
import { drawProductScenario, PRODUCT_KINDS } from '../chaos/openclaw/schedule.ts'
import { rewritePage, rewriteProductPage } from '../chaos/page.ts'
import { drawScenario, KINDS } from '../chaos/schedule.ts'
import { forge } from '../chaos/strangers.ts'

test('a seed draws the same scenario again, and consecutive seeds begin with each kind', async (t) => {
  t.strictSame(drawScenario(7), drawScenario(7))
  const seeds = Array.from(KINDS, (_, n) => 1000 + n)
  const first = seeds.map((seed) => drawScenario(seed).faults[0]?.kind)
  t.strictSame(new Set(first), new Set(KINDS))
})

test('no scenario has a kind twice, or a start on broken files', async (t) => {
  for (let seed = 0; seed < 2000; seed += 1) {
    const kinds = drawScenario(seed).faults.map(({ kind }) => kind)
    t.equal(new Set(kinds).size, kinds.length, String(seed))
    if (!kinds.includes('fill the disk of its files')) continue
    t.notOk(kinds.includes('kill the sidecar') || kinds.includes('terminate the sidecar'))
  }
})

test('with OpenClaw, too, a seed draws the same again, and no scenario has a fault twice', async (t) => {
  const first = new Set<string | undefined>()
  for (let seed = 0; seed < 200; seed += 1) {
    const scenario = drawProductScenario(seed)
    t.strictSame(scenario, drawProductScenario(seed))
    const kinds = scenario.faults.map(({ kind }) => kind)
    t.equal(new Set(kinds).size, kinds.length)
    first.add(kinds[0])
  }
  t.strictSame(first, new Set(PRODUCT_KINDS))
})

const METRICS = new Map([
  ['auth_attempts_total{result="success"}', 1],
  ['auth_attempts_total{result="failed"}', 3],
  ['stream_closes_total{code="worker_gone"}', 1],
])
const AUDIT = [
  '{"event":"k8s-auth-success"}',
  '{"event":"k8s-auth-failure","count":3}',
  '{"event":"k8s-session-closed"}',
]

test('the books balance only when each line is there or counted as lost', async (t) => {
  t.strictSame(judgeBooks(METRICS, AUDIT), [])
  t.equal(judgeBooks(METRICS, AUDIT.slice(1)).length, 1)
  const lost = new Map([...METRICS, ['log_lines_dropped_total{output="audit"}', 1] as const])
  t.strictSame(judgeBooks(lost, AUDIT.slice(1)), [])
  t.equal(judgeBooks(lost, AUDIT).length, 1, 'a line that is there was not lost')
  t.equal(judgeBooks(lost, [...AUDIT.slice(1), '{"event":"k8s-session-closed"}']).length, 1)
})

test('a stream or a descriptor that is left, a token and a bug are told', async (t) => {
  t.strictSame(judgeRest(new Map([['streams', 0]]), 2), [])
  t.match(judgeRest(new Map([['streams', 1]]), 100), [/^streams is 1/, /^100 more descriptors/])
  const said = (line: string) =>
    judgeOutputs({ log: () => [line], audit: () => [] }, ['head.claims.signature'])
  t.strictSame(said('{"level":"warn"}'), [])
  t.strictSame(said('{"token":"head.claims.signature"}'), ['a token was written down'])
  t.match(said('{"level":"fatal"}'), [/^a bug/])
})

test('a forged token differs in its signature alone', async (t) => {
  const token = `head.claims.${'AbCdEfGhIjKlMnOpQrStUvWxYz'.repeat(3)}`
  const forged = forge(token)
  t.not(forged, token)
  t.equal(forged.length, token.length)
  t.equal(forged.slice(0, 12), token.slice(0, 12))
})

test('a stranger is told why it is refused, or to come again, and nothing else', async (t) => {
  const usual = { isPodGone: false, hasWrongClock: false }
  const told = (code: string, more: Partial<Judged & typeof usual> = {}) =>
    judgeAnswer(
      { pretence: "another pod's token", outcome: 'refused', code, ...more },
      { ...usual, ...more },
    )
  t.equal(told('source_address_mismatch'), 'denied')
  t.equal(told('source_address_unconfirmed'), 'doubted')
  t.equal(told('handshake_timeout'), 'doubted', 'a slow network looks like a slow caller')
  t.equal(told('', { outcome: 'no answer' }), 'doubted')
  const problem = (code: string) => ({ problem: `another pod's token was told ${code}` })
  t.strictSame(told('signature_invalid'), problem('signature_invalid'), 'for the wrong reason')
  t.strictSame(told('no code'), problem('no code'))
  t.strictSame(told('pod_deleted'), problem('pod_deleted'), 'while it lives')
  t.equal(told('pod_deleted', { isPodGone: true }), 'denied')
  t.strictSame(told('token_expired'), problem('token_expired'))
  t.equal(told('token_expired', { hasWrongClock: true }), 'doubted')
  t.strictSame(told('', { outcome: 'in' }), { problem: "another pod's token was let in" })
  t.equal(told('identity_not_allowed', { pretence: "a stranger's token" }), 'denied')
})

test('the page tells what failed, and keeps the rest', async (t) => {
  const page = 'before\n<!-- begin chaos -->\nold\n<!-- end chaos -->\nafter\n'
  const one = { kinds: ['no DNS'], backMs: 1234, revokedMs: [80], echoes: 5, streams: 2 }
  const more = { strangers: 3, ms: 9, log: [] }
  const run = { date: '2026-11-28', version: 'v1.35.4', firstSeed: 6 }
  const played = [
    { ...one, ...more, seed: 6, problems: [] },
    { ...one, ...more, seed: 7, problems: ['it fell over'] },
  ]
  const written = rewritePage(page, { ...run, played })
  t.match(written, /^before\n[^]*after\n$/)
  t.match(written, /\*\*1 of 2 scenarios passed\*\*/)
  t.match(written, /^- seed 7: it fell over$/m)
  t.match(written, /^\| no DNS \| 2 \| 1 \| 1\.2 s \| 1\.2 s \|$/m)
  t.notMatch(written, /old/)

  const product = page.replaceAll(' chaos ', ' chaos with OpenClaw ')
  const killed = { ...one, ...more, seed: 0, kinds: ['kill the gateway'], problems: [] }
  const letIn = { ...killed, seed: 1, problems: ['a forged signature was let in'] }
  const tell = (all: (typeof killed | typeof letIn)[]) =>
    rewriteProductPage(product, { ...run, version: '2026.9.6', firstSeed: 0, played: all })
  t.match(tell([killed]), /OpenClaw 2026\.9\.6, seeds 0 to 0: \*\*1 of 1 scenarios passed\*\*/)
  t.match(tell([killed]), /^3 times a caller without a right tried to get in, and none did\./m)
  t.match(tell([killed, letIn]), /\*\*and not always in vain\*\*/)
  t.match(tell([killed]), /^\| kill the gateway \| 1 \| 1 \| 1\.2 s \| 1\.2 s \|$/m)
})
