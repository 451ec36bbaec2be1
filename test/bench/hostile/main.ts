/** `npm run bench:hostile`: attacks on the image's sidecar with the chart's memory limit, while a good stream echoes. */

// npm run bench:hostile -- [--only NAME] [--limit MiB]; what to add to goes into test/bench/hostile/attacks.ts.

import { parseArgs } from 'node:util'
import { fileURLToPath } from 'node:url'
import { ATTACKS } from './attacks.ts'
import { OUTPUT_CASES, nameOf, playOutputs } from './outputs.ts'
import { startHostileRig } from './rig.ts'
import { ship } from '../peers/shipped.ts'

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string' },
    /** What the chart gives the container. */
    limit: { type: 'string', default: '512' },
  },
})

const shipped = ship(fileURLToPath(new URL('../../..', import.meta.url)))
const chosen = ATTACKS.filter(({ name }) => flags.only === undefined || name === flags.only)
const outputs = OUTPUT_CASES.filter((each) => [undefined, nameOf(each)].includes(flags.only))
if (chosen.length + outputs.length === 0) throw new Error(`there is no attack ${flags.only}`)

const rows = [
  ['attack', 'sent', 'connections', 'RSS before / peak', 'probe', 'streams kept', 'exit'],
]
let holds = true
for (const { name, set = [], run, openFilesMax } of chosen) {
  // Each attack gets a new sidecar, so that none profits from what another has left.
  const rig = await startHostileRig({
    shipped,
    set,
    memoryMib: Number(flags.limit),
    openFilesMax,
  })
  const rssBefore = rig.rssMib()
  const sent = await run(rig).catch((error: unknown) => {
    process.stderr.write(`${name}: ${String(error)}\n`)
    return { bytes: Number.NaN, connections: Number.NaN, holds: false }
  })
  const { exit, isProbed, echo, peakMib } = await rig.finish()
  const isKept = echo.isOpen && echo.answered === echo.sent && echo.isAdmitted
  holds &&= exit === undefined && isProbed && isKept && sent.holds !== false
  rows.push([
    name,
    `${(sent.bytes / 1024 / 1024).toFixed(1)} MiB`,
    String(sent.connections),
    `${rssBefore.toFixed(0)} / ${peakMib.toFixed(0)} MiB`,
    isProbed ? 'ok' : 'BROKEN',
    isKept ? `yes, ${echo.answered} echoes, slowest ${echo.slowestMs.toFixed(0)} ms` : 'NO',
    exit ?? 'alive',
  ])
}

for (const each of outputs) {
  const seen = await playOutputs(each, { shipped, memoryMib: Number(flags.limit) })
  holds &&= seen.holds
  rows.push([
    nameOf(each),
    `${seen.refused} refusals`,
    String(seen.refused + 1),
    `${seen.rssBefore.toFixed(0)} / ${seen.peakMib.toFixed(0)} MiB`,
    seen.isProbed ? `ok, ${seen.dropped} lines dropped` : 'BROKEN',
    seen.isKept ? `yes, slowest echo ${seen.slowestMs.toFixed(0)} ms` : 'NO',
    `${seen.exit} after ${seen.exitMs.toFixed(0)} ms`,
  ])
}

const widths = rows[0]?.map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0))) ?? []
for (const row of rows) {
  process.stdout.write(`${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join('  ')}\n`)
}
process.stdout.write(`memory limit: ${flags.limit} MiB\n`)
process.exitCode = holds ? 0 : 1
