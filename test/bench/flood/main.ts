/** Measures a flood of distinct bad tokens over real sockets: `node test/bench/flood/main.ts [tokens]`. */

import { connect } from 'node:net'
import { BAD_TOKENS, badToken, badTokenClasses } from '../../kit/bad-tokens.ts'
import { report, startProcessRig, type Finding } from '../process-rig.ts'

const TOKENS = Number(process.argv[2] ?? 100_000)
/** Sent before memory is first measured, so that one-time compilation and pooling do not count. */
const WARM_UP = Math.min(10_000, TOKENS)
const AT_ONCE = 64
/** Connections come from this many addresses: the ports of one would run out. */
const ADDRESSES = 16
const RSS_GROWTH_MIB_MAX = 30
const COOLDOWN_S = 30
const REQUEST =
  'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
  'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'

const rig = await startProcessRig({
  set: [
    'limits.failuresPerAddress=0',
    'limits.pendingPerAddress=2000',
    'review.cacheTtl=10m',
    // Otherwise most tokens of a wrong issuer are the fault keys_cooldown.
    'kubernetes.issuers=[https://kubernetes.default.svc.cluster.local]',
  ],
})

/** Resolves with the status of the answer, or 0 where there was none. */
const show = (token: string, localAddress: string): Promise<number> =>
  new Promise((resolve) => {
    const socket = connect({ host: rig.host, port: rig.port, localAddress })
    let status = 0
    socket.setTimeout(10_000, () => socket.destroy())
    socket.on('error', () => {})
    socket.on('close', () => resolve(status))
    socket.once('data', (chunk) => {
      status = Number(chunk.toString('latin1', 9, 12))
      if (status === 101) socket.destroy()
    })
    socket.write(`${REQUEST}Authorization: Bearer ${token}\r\n\r\n`)
  })

const statuses = new Map<number, number>()
let next = 0
const flood = async (until: number): Promise<void> => {
  const work = async (): Promise<void> => {
    for (let n = next++; n < until; n = next++) {
      const kind = badTokenClasses[n % badTokenClasses.length] ?? 'no JWT'
      const address = `127.0.1.${1 + (n % ADDRESSES)}`
      const status = await show(badToken(kind, n, rig.token), address)
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
    }
    // The turn this worker took beyond the end belongs to the next flood.
    next -= 1
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
}

const isAdmitted = async () => (await show(rig.token, rig.podAddress)) === 101

const startedAt = performance.now()
const wasAdmitted = await isAdmitted()
const rssAtStart = await rig.rssMib()
await flood(WARM_UP)
const rssBefore = await rig.rssMib()
let rssPeak = rssBefore
const look = async (): Promise<void> => {
  rssPeak = Math.max(rssPeak, await rig.rssMib())
}
const watch = setInterval(() => void look(), 500)
const floodedAt = performance.now()
await flood(TOKENS)
const seconds = (performance.now() - floodedAt) / 1000
clearInterval(watch)
await look()
const isStillAdmitted = await isAdmitted()

const metrics = await rig.metrics()
const failuresOf = (code: string) =>
  metrics.get(`auth_failures_total{kind="denial",code="${code}"}`) ?? 0
const lookups = (outcome: string) =>
  metrics.get(`verdict_cache_lookups_total{outcome="${outcome}"}`) ?? 0
const counts = badTokenClasses.map((kind) => failuresOf(BAD_TOKENS[kind]))
const sum = counts.reduce((all, count) => all + count, 0)
const cooldowns = 1 + Math.ceil((performance.now() - startedAt) / 1000 / COOLDOWN_S)
const audited = rig.sidecar.stdout.all
  .map((line) => JSON.parse(line) as { event: string; count?: number })
  .filter(({ event }) => event === 'k8s-auth-failed').length
const secret = rig.token.split('.').at(-1) ?? rig.token
const output = [...rig.sidecar.stdout.all, ...rig.sidecar.stderr.all].join('\n')

for (const [n, kind] of badTokenClasses.entries()) {
  process.stdout.write(`        ${kind.padEnd(16)} ${BAD_TOKENS[kind].padEnd(20)} ${counts[n]}\n`)
}
const reviews = rig.api.counts.tokenReviews
const growth = rssPeak - rssBefore
const findings: readonly Finding[] = [
  ['every token refused with 401', JSON.stringify([...statuses]), statuses.get(401) === TOKENS],
  ['counts per code add up', `${sum} of ${TOKENS}`, sum === TOKENS],
  ['no TokenReview for a bad token', `${reviews - 1}`, reviews === 1],
  ['one key fetch a cooldown at most', `${rig.api.counts.jwks}`, rig.api.counts.jwks <= cooldowns],
  [
    'the good verdict is not evicted',
    `${lookups('miss')} miss, ${lookups('hit')} hit`,
    wasAdmitted && isStillAdmitted && lookups('miss') === 1,
  ],
  [
    `memory grows less than ${RSS_GROWTH_MIB_MAX} MiB`,
    `${rssAtStart.toFixed(1)} at start, ${rssBefore.toFixed(1)} warm, ${rssPeak.toFixed(1)} peak, +${growth.toFixed(1)} MiB`,
    growth < RSS_GROWTH_MIB_MAX,
  ],
  ['the audit stays readable', `${audited} lines`, audited <= TOKENS / 10],
  ['no token in any output', '', !output.includes(secret)],
]
process.stdout.write(`        ${((TOKENS - WARM_UP) / seconds).toFixed(0)} refusals a second\n`)
process.exitCode = report(findings) ? 0 : 1
await rig.stop()
