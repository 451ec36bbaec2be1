/** The schema of signing keys, TokenReviews and limits. */

import * as z from 'zod'
import { duration, hours, minutes, rate, seconds, size } from './units.ts'

const KIB = 1_024
const MIB = 1_024 * KIB

const count = (min: number, max: number) => z.int().min(min).max(max)

export const jwks = z.strictObject({
  cooldown: duration({ min: 0, max: minutes(10) })
    .prefault('30s')
    .describe('Minimum time between two fetches for an unknown key, 0s to 10m. Default 30s.'),
  refresh: duration({ min: seconds(1), max: hours(24) })
    .prefault('5m')
    .describe('Age at which the signing keys are fetched again, 1s to 24h. Default 5m.'),
  staleAfter: duration({ min: seconds(1), max: hours(24) })
    .prefault('10m')
    .describe('How long the last keys are used if fetching fails, 1s to 24h. Default 10m.'),
})

export const review = z.strictObject({
  timeout: duration({ min: 10, max: seconds(30) })
    .prefault('3s')
    .describe(
      'Deadline of a TokenReview and its retry, not counting its time in the queue, 10ms to 30s. Default 3s.',
    ),
  concurrency: count(1, 1_024)
    .default(32)
    .describe('TokenReviews in progress at once, 1 to 1024. Default 32.'),
  queue: count(0, 65_536)
    .default(1_024)
    .describe('TokenReviews waiting in the queue, 0 to 65536. Default 1024.'),
  cacheTtl: duration({ min: 0, max: minutes(10) })
    .prefault('60s')
    .describe('How long a positive verdict is cached, 0s to 10m. Default 60s.'),
  negativeTtl: duration({ min: 0, max: seconds(2) })
    .prefault('2s')
    .describe('How long a negative verdict is cached, 0s to 2s. Default 2s.'),
  cacheEntries: count(1, 1_000_000)
    .default(20_000)
    .describe('Maximum number of cached verdicts, 1 to 1000000. Default 20000.'),
})

export const limits = z.strictObject({
  messageBytes: size({ min: KIB, max: 1_024 * MIB })
    .prefault('25MiB')
    .describe('Largest reassembled message in bytes, 1KiB to 1GiB. Default 25MiB.'),
  handshakeTimeout: duration({ min: 10, max: minutes(5) })
    .prefault('15s')
    .describe('Longest handshake of a worker, 10ms to 5m. Default 15s.'),
  preAuthFrameBytes: size({ min: KIB, max: MIB })
    .prefault('64KiB')
    .describe('Largest first message in bytes, 1KiB to 1MiB. Default 64KiB.'),
  streams: count(1, 1_000_000)
    .default(10_000)
    .describe('Open streams and admissions in progress, 1 to 1000000. Default 10000.'),
  streamsPerPod: count(1, 1_024)
    .default(8)
    .describe('Open streams of one pod (protocol stream only), 1 to 1024. Default 8.'),
  hostedStreamsPerPod: count(1, 1_024)
    .default(64)
    .describe(
      'Hosted streams and transfers of one pod, besides its own stream (gateway.sessionHosting only), 1 to 1024. Default 64.',
    ),
  pendingPerAddress: count(1, 65_536)
    .default(32)
    .describe(
      "Handshakes in progress from one address, 1 to 65536. An IPv6 address counts as its /64, unless it is a pod's. Default 32.",
    ),
  pending: count(1, 1_000_000)
    .default(2_000)
    .describe(
      'Handshakes in progress of workers that have not sent a signed token yet, 1 to 1000000. Default 2000.',
    ),
  failuresPerAddress: rate({ min: 0, max: 100_000 })
    .prefault('20/s')
    .describe(
      "Failed attempts per second from one address, or from one pod once its signature is verified, 0/s to 100000/s, with bursts of five times as many; 0 turns the limit off. An IPv6 address counts as its /64, unless it is a pod's. Default 20/s.",
    ),
  emptyFragments: count(0, 1_000_000)
    .default(1_000)
    .describe('Empty fragments in a row, 0 to 1000000. Default 1000.'),
  idlePing: duration({ min: 10, max: hours(1) })
    .prefault('20s')
    .describe('Idle time after which a peer is pinged, 10ms to 1h. Default 20s.'),
})
