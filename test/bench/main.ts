/** `npm run bench`: the sidecar beside its peers on the same work, in interleaved rounds. */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startCluster } from './cluster.ts'
import type { Bench } from './contenders.ts'
import { findGo } from './go-programs.ts'
import { startLoad } from './load.ts'
import { parseOptions, USAGE, type Options, type SectionName } from './options.ts'
import { choosePeers } from './peers/choose.ts'
import { measureEchoes } from './sections/echo.ts'
import { measureHandshakes } from './sections/handshakes.ts'
import { measureIdle } from './sections/idle.ts'
import { measureRoundTrips } from './sections/round-trip.ts'
import { measureStreams } from './sections/streams.ts'
import { printTables } from './table.ts'

const MEASURES: Readonly<Record<SectionName, (bench: Bench) => Promise<void>>> = {
  echo: measureEchoes,
  streams: measureStreams,
  handshakes: measureHandshakes,
  'round-trip': measureRoundTrips,
  idle: measureIdle,
}

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

const run = async (options: Options): Promise<void> => {
  const directory = mkdtempSync(join(tmpdir(), 'auth-sidecar-bench-'))
  const { peers, absent } = choosePeers(options)
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
    problems: [],
    say,
  }
  try {
    for (const section of options.sections) await MEASURES[section](bench)
  } finally {
    await load.stop()
    await cluster.stop()
    rmSync(directory, { recursive: true })
  }
  printTables(bench.results, say)
  process.exitCode = bench.problems.length === 0 ? 0 : 1
}

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
