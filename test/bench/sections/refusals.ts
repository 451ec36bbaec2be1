/** What each proxy refuses, and how long after the end of a pod or a token its streams and its yes last. */

import { setTimeout as sleep } from 'node:timers/promises'
import type { WebSocket } from 'ws'
import { connectWorker } from '../../kit/worker-client.ts'
import type { Probes } from '../api-server.ts'
import type { Fact } from '../results.ts'
import { report, withContenders, type Bench, type Contender } from '../contenders.ts'

export const REFUSALS = 'What each refuses'
export const ENDINGS = 'When it ends'
/** Long enough for a token that is kept for two minutes to be asked about again. */
const OBSERVED_S = 150
const OBSERVED_S_QUICK = 5
/** How long a token lives that expires while it is observed. */
const LIFE_S = 30
const LIFE_S_QUICK = 6
const POLL_MS = 500
/** A proxy that asks again and again when nobody answers takes some seconds to say so. */
const ANSWER_MS_MAX = 60_000
const MS_PER_S = 1000
const SWITCHED = 101
/** What a client reports where no close frame came (RFC 6455 §7.1.5). */
const NO_CLOSE = 1006

type Shown = { readonly address: string; readonly token: string }

export const observeRefusals = async (bench: Bench): Promise<void> => {
  const { options, cluster } = bench
  const probes = await cluster.createProbes(options.isQuick ? LIFE_S_QUICK : LIFE_S)
  await withContenders(bench, { section: 'peers', isTls: false }, async (contenders) => {
    const observe = async (table: string, name: string, look: Look): Promise<void> =>
      void bench.facts.push(...(await observeAll(bench, contenders, { table, name, look })))
    // First, since one of the tokens does not live long.
    const streams = await openStreams(bench, contenders, probes)
    for (const [name, shown] of refusable(probes)) {
      await observe(REFUSALS, name, async (contender) => answerOf(await show(contender, shown)))
    }
    await observeEnds(bench, streams, probes)
    const { staying, leaving } = probes
    const unseen = { address: leaving.address, token: leaving.unseen }
    await observe(REFUSALS, 'a new token of a pod that is gone', async (contender) =>
      answerOf(await show(contender, unseen)),
    )
    await cluster.disturb('stop')
    const late = { address: staying.address, token: staying.late }
    await observe(REFUSALS, 'a new, good token while the API server is down', async (contender) =>
      answerOf(await show(contender, late)),
    )
  })
}

type Look = (contender: Contender) => Promise<string>

/** All at the same time: each only waits. */
const observeAll = async (
  bench: Bench,
  contenders: readonly Contender[],
  { table, name, look }: { readonly table: string; readonly name: string; readonly look: Look },
): Promise<readonly Fact[]> => {
  const facts: Fact[] = []
  await Promise.all(
    contenders.map(async (contender) => {
      const where = { table, case: name, peer: contender.name }
      await look(contender).then(
        (seen) => facts.push({ ...where, seen }),
        (error: unknown) => report(bench, where, error),
      )
    }),
  )
  return facts
}

const refusable = ({ staying, other, foreign }: Probes): readonly (readonly [string, Shown])[] => {
  const from = (token: string): Shown => ({ address: staying.address, token })
  return [
    ['a good token from its pod', from(staying.good)],
    ['a bad signature', from(staying.badSignature)],
    ['a token for another audience', from(staying.otherAudience)],
    ['a token of another ServiceAccount', other],
    ['a token of the same ServiceAccount in another namespace', foreign],
    ['a token bound to no pod', from(staying.unbound)],
    [
      "a token from an address that is not its pod's",
      { ...from(staying.good), address: other.address },
    ],
  ]
}

/** One pod is deleted and one token expires, while open streams and further connects are observed. */
const observeEnds = async (bench: Bench, streams: OpenStreams, probes: Probes): Promise<void> => {
  const { cluster, options } = bench
  const { staying } = probes
  const { deleted, expiring } = ending(probes)
  const deletedAtMs = Date.now()
  await cluster.disturb('delete')
  const observedMs = (options.isQuick ? OBSERVED_S_QUICK : OBSERVED_S) * MS_PER_S
  const untilMs = Math.max(deletedAtMs, staying.expiresAtMs) + observedMs
  const watching = [...streams.keys()]
  const cases = [
    { of: 'pod deleted', sinceMs: deletedAtMs, shown: deleted, index: 0 },
    { of: 'token expired', sinceMs: staying.expiresAtMs, shown: expiring, index: 1 },
  ] as const
  const facts = await Promise.all(
    cases.flatMap(({ of, sinceMs, shown, index }) => [
      observeAll(bench, watching, {
        table: ENDINGS,
        name: `open stream, ${of}`,
        look: (contender) => describeEnd(streams.get(contender)?.[index], sinceMs, untilMs),
      }),
      observeAll(bench, watching, {
        table: ENDINGS,
        name: `known token, ${of}`,
        look: (contender) => describeRefusal(contender, shown, { sinceMs, untilMs }),
      }),
    ]),
  )
  // In the order of the cases, whichever ended first.
  bench.facts.push(...facts.flat())
}

type End = { readonly atMs: number; readonly how: string }
type Stream = { readonly socket: WebSocket; readonly ended: Promise<End> }
type OpenStreams = ReadonlyMap<Contender, readonly [deleted: Stream, expired: Stream]>

/** Whose streams are open when they should end. */
const ending = ({ staying, leaving }: Probes): Readonly<Record<'deleted' | 'expiring', Shown>> => ({
  deleted: { address: leaving.address, token: leaving.shown },
  expiring: { address: staying.address, token: staying.expiring },
})

const openStreams = async (
  bench: Bench,
  contenders: readonly Contender[],
  probes: Probes,
): Promise<OpenStreams> => {
  const { deleted, expiring } = ending(probes)
  const streams = new Map<Contender, readonly [Stream, Stream]>()
  for (const contender of contenders) {
    try {
      const first = await openStream(contender, deleted)
      streams.set(contender, [first, await openStream(contender, expiring)])
    } catch (error) {
      report(bench, { table: ENDINGS, case: 'open streams', peer: contender.name }, error)
    }
  }
  return streams
}

const openStream = async (contender: Contender, shown: Shown): Promise<Stream> => {
  const { status, socket } = await show(contender, shown)
  if (socket === undefined) throw new Error(`a good token was answered with ${status}`)
  const { promise: ended, resolve } = Promise.withResolvers<End>()
  socket.once('close', (code) => {
    resolve({ atMs: Date.now(), how: code === NO_CLOSE ? 'without a close' : `close ${code}` })
  })
  return { socket, ended }
}

const describeEnd = async (
  stream: Stream | undefined,
  sinceMs: number,
  untilMs: number,
): Promise<string> => {
  if (stream === undefined) throw new Error('there is no stream')
  const leftMs = untilMs - Date.now()
  const end = await Promise.race([stream.ended, sleep(leftMs, undefined, { ref: false })])
  stream.socket.terminate()
  if (end === undefined) return `never (${seconds(untilMs - sinceMs, 0)} observed)`
  return `after ${seconds(end.atMs - sinceMs)}, ${end.how}`
}

/** When a token that was good begins to be refused. */
const describeRefusal = async (
  contender: Contender,
  shown: Shown,
  { sinceMs, untilMs }: { readonly sinceMs: number; readonly untilMs: number },
): Promise<string> => {
  await sleep(Math.max(0, sinceMs - Date.now()))
  while (Date.now() < untilMs) {
    const askedAtMs = Date.now()
    const { status, socket } = await show(contender, shown)
    socket?.terminate()
    if (status !== SWITCHED) return `refused after ${seconds(askedAtMs - sinceMs)} (${status})`
    await sleep(POLL_MS)
  }
  return `lets in (${seconds(untilMs - sinceMs, 0)} observed)`
}

const seconds = (ms: number, digits = 1): string =>
  ms < MS_PER_S && digits > 0 ? `${Math.max(0, ms)} ms` : `${(ms / MS_PER_S).toFixed(digits)} s`

type Answer = { readonly status: number; readonly socket?: WebSocket }

const show = async ({ target }: Contender, shown: Shown): Promise<Answer> => {
  const { address: localAddress, token } = shown
  const answered = connectWorker({ url: `ws://${target('').address}/`, token, localAddress })
  const limit = sleep(ANSWER_MS_MAX, undefined, { ref: false })
  const outcome = await Promise.race([answered, limit])
  if (outcome === undefined) throw new Error(`no answer within ${ANSWER_MS_MAX} ms`)
  return outcome.ok ? { status: SWITCHED, socket: outcome.socket } : { status: outcome.status }
}

const answerOf = ({ status, socket }: Answer): string => {
  socket?.terminate()
  return status === SWITCHED ? 'lets in' : `refuses (${status})`
}
