/** What the sidecar has to reach compared with its peers, and whether a run shows that it does. */

import { median, ratio, type Result } from '../results.ts'
import { figure } from './figures.ts'

export type Finding = {
  readonly target: string
  readonly seen: string
  readonly state: 'met' | 'missed' | 'unmeasured'
}

const SIDECAR = 'sidecar'
const TUNED = ['nginx-64k', 'haproxy-64k']
const ECHO_SIZES_SMALL = ['128 B', '1 KiB']

const ECHO_TO_GO_MAX = 1
/** Small messages on many connections cost Node cache misses; by the end of the row's name. */
const ECHO_SMALL_TO_GO_MAX = { ' x 64': 1.05, ' x 1,000': 1.15 }
const ECHO_TLS_TO_GO_MAX = 1.3
const STREAM_TLS_TO_GO_MAX = 1.2
const ECHO_SMALL_TO_TUNED_MAX = 1.3
const ECHO_LARGE_TO_TUNED_MAX = 1.1
const STREAM_TO_GO_MAX = 1
const STREAM_TO_NGINX_MAX = 1.2
const IDLE_KIB_EACH_MAX = 10
const BASE_RSS_MIB_MAX = 64
const STORM_RSS_MIB_MAX = 300
const START_MS_MAX = 250
const CACHED_MS_MAX = 0.25
const CACHED_TO_GO_MAX = 1.2
const REFUSED_MS_MAX = 0.15
const ROUND_TRIP_US_MAX = 35

export const judge = (results: readonly Result[]): readonly Finding[] => {
  const find = (table: string, row: string, peer: string): Result | undefined =>
    results.find((each) => each.table === table && each.case === row && each.peer === peer)
  const casesOf = (table: string): readonly string[] => [
    ...new Set(results.filter((each) => each.table === table).map((each) => each.case)),
  ]

  /** The maximum, as a multiple of the cheapest of these peers. */
  const beside = (
    table: string,
    row: string,
    { peers, max }: { readonly peers: readonly string[]; readonly max: number },
  ): Finding => {
    const target = `${table}, ${row}: <= ${max} x ${peers.join(' or ')}`
    const ours = find(table, row, SIDECAR)
    const [best] = peers
      .map((peer) => find(table, row, peer))
      .filter((each) => each !== undefined)
      .toSorted((one, other) => median(one.rounds) - median(other.rounds))
    if (ours === undefined || best === undefined) return unmeasured(target)
    const value = ratio(ours.rounds, best.rounds)
    const seen = `${value.toFixed(2)} x ${best.peer}`
    return { target, seen, state: value <= max ? 'met' : 'missed' }
  }

  /** The maximum, in the unit of the table. */
  const atMost = (table: string, row: string | undefined, max: number): Finding => {
    const ours = row === undefined ? undefined : find(table, row, SIDECAR)
    const name = row === undefined ? table : `${table}, ${row}`
    if (ours === undefined) return unmeasured(`${name}: <= ${max}`)
    const value = median(ours.rounds)
    return {
      target: `${name}: <= ${max} ${ours.unit}`,
      seen: figure(value),
      state: value <= max ? 'met' : 'missed',
    }
  }

  const echo = 'echo, plain'
  const streams = 'streams of 64 KiB messages, plain'
  const handshakes = 'handshakes, plain'
  const cached = 'admitted, verdict cached'
  const each = 'idle memory, each connection over the base'
  const isSmall = (row: string): boolean =>
    ECHO_SIZES_SMALL.some((size) => row.startsWith(`${size} x`))
  const toGoMax = (row: string): number =>
    (isSmall(row) &&
      Object.entries(ECHO_SMALL_TO_GO_MAX).find(([end]) => row.endsWith(end))?.[1]) ||
    ECHO_TO_GO_MAX
  const storm = 'memory, all connections at once'
  return [
    ...casesOf(echo).flatMap((row) => [
      beside(echo, row, { peers: ['go'], max: toGoMax(row) }),
      beside(echo, row, {
        peers: TUNED,
        max: isSmall(row) ? ECHO_SMALL_TO_TUNED_MAX : ECHO_LARGE_TO_TUNED_MAX,
      }),
    ]),
    ...['down', 'up'].flatMap((row) => [
      beside(streams, row, { peers: ['go'], max: STREAM_TO_GO_MAX }),
      beside(streams, row, { peers: ['nginx-64k'], max: STREAM_TO_NGINX_MAX }),
    ]),
    beside('echo, TLS', '16 KiB x 64', { peers: ['go'], max: ECHO_TLS_TO_GO_MAX }),
    ...['down', 'up'].map((row) =>
      beside('streams of 64 KiB messages, TLS', row, { peers: ['go'], max: STREAM_TLS_TO_GO_MAX }),
    ),
    // The last row has the most connections, which can be fewer than requested.
    atMost(each, casesOf(each).at(-1), IDLE_KIB_EACH_MAX),
    atMost('idle memory, resident', '0', BASE_RSS_MIB_MAX),
    atMost(storm, casesOf(storm).at(-1), STORM_RSS_MIB_MAX),
    atMost('time to work', 'from start to first admission', START_MS_MAX),
    atMost(handshakes, cached, CACHED_MS_MAX),
    beside(handshakes, cached, { peers: ['go'], max: CACHED_TO_GO_MAX }),
    atMost(handshakes, 'refused, not a JWT', REFUSED_MS_MAX),
    atMost(handshakes, 'refused, bad signature', REFUSED_MS_MAX),
    atMost('round trip of 128 B, one connection', 'p50 added', ROUND_TRIP_US_MAX),
  ]
}

const unmeasured = (target: string): Finding => ({
  target,
  seen: 'not measured',
  state: 'unmeasured',
})
