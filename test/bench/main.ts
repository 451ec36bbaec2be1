/** `npm run bench`: the sidecar and its peers on the same work, in interleaved rounds. */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startCluster } from './cluster.ts'
import type { Bench } from './contenders.ts'
import { findGo } from './go-programs.ts'
import { startLoad } from './load.ts'
import {
  isOfPeers,
  isWhole,
  parseOptions,
  USAGE,
  type Options,
  type SectionName,
} from './options.ts'
import { choosePeers } from './peers/choose.ts'
import { renderPeers } from './report/peers-page.ts'
import { describeMachine, describePeers, LOAD_QUIET, type Report } from './report/report.ts'
import { renderText } from './report/text.ts'
import { writePeers, writeReport } from './report/write.ts'
import { measureEchoes } from './sections/echo.ts'
import { measureHandshakes } from './sections/handshakes.ts'
import { measureIdle } from './sections/idle.ts'
import { measureBesidePeers } from './sections/peers.ts'
import { measureRoundTrips } from './sections/round-trip.ts'
import { measureStarts } from './sections/start.ts'
import { measureStreams } from './sections/streams.ts'

const MEASURES: Readonly<Record<SectionName, (bench: Bench) => Promise<void>>> = {
  echo: measureEchoes,
  streams: measureStreams,
  handshakes: measureHandshakes,
  'round-trip': measureRoundTrips,
  start: measureStarts,
  idle: measureIdle,
  peers: measureBesidePeers,
}

const PAGE = fileURLToPath(new URL('../../docs/performance/', import.meta.url))
const SCRATCH = fileURLToPath(new URL('../../node_modules/.cache/bench/', import.meta.url))
const MS_PER_MINUTE = 60_000

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

const run = async (options: Options): Promise<void> => {
  const startedAt = performance.now()
  const machine = describeMachine()
  if (machine.loadBefore > LOAD_QUIET) {
    say(
      `The load is ${machine.loadBefore.toFixed(2)} before anything has begun: the figures will be noisy.`,
    )
  }
  const directory = mkdtempSync(join(tmpdir(), 'auth-sidecar-bench-'))
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }))
  const { peers, absent } = await choosePeers(options)
  for (const { name, about } of peers) say(`${name}: ${about}`)
  for (const { name, absent: reason } of absent) say(`${name}: left out, ${reason}`)
  const load = await startLoad()
  const cluster = await startCluster(directory)
  const bench: Bench = {
    options,
    cluster,
    load,
    directory,
    peers,
    results: [],
    facts: [],
    problems: [],
    say,
  }
  try {
    for (const section of options.sections) {
      say(`${minutesSince(startedAt).toFixed(1)} min: ${section}`)
      await MEASURES[section](bench)
    }
  } finally {
    await load.stop()
    await cluster.stop()
  }
  const report: Report = {
    takenAt: new Date().toISOString(),
    machine,
    rounds: options.rounds,
    windowMs: options.windowMs,
    minutes: minutesSince(startedAt),
    peers: describePeers(peers),
    absent,
    results: bench.results,
    ...(bench.facts.length === 0 ? {} : { facts: bench.facts }),
    problems: bench.problems,
  }
  const out = options.out ?? (isWhole(options) ? PAGE : SCRATCH)
  if (isOfPeers(options)) {
    writePeers(out, report)
    say(renderPeers(report))
  } else {
    writeReport(out, report)
    say(renderText(report))
  }
  say(`figures and plots: ${out}; ${report.minutes.toFixed(1)} minutes`)
  process.exitCode = bench.problems.length === 0 ? 0 : 1
}

const minutesSince = (startedAt: number): number => (performance.now() - startedAt) / MS_PER_MINUTE

const options = parseOptions(process.argv.slice(2))
if (options === undefined) say(USAGE)
else if (findGo() === undefined) {
  say(
    'The load generator is a Go program, and there is no go on the PATH: nothing can be measured.',
  )
  process.exitCode = 1
} else {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
  await run(options)
}
