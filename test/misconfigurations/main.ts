/** `npm run misconfigurations`: the mistakes of operators, and where, what and how to fix as they are told. */

import { parseArgs } from 'node:util'
import { asError } from '@openclaw-k8s/auth-sidecar/lib/errors.ts'
import { NEIGHBOR_CASES } from './neighbor-cases.ts'
import { partsOf, startSite, type Look, type Misconfiguration } from './site.ts'
import { WRITTEN_CASES } from './written-cases.ts'

const USAGE = `npm run misconfigurations -- [--only NUMBER,NUMBER…]

Plays common mistakes on a stand-in API server and gateway, and prints the decisive lines of each
command. It fails if one no longer says where the mistake is, what is wrong, and how to fix it.
`
/** A line of a list can be much longer than what it shows. */
const SHOWN_MAX = 700

const main = async (): Promise<void> => {
  const { values } = parseArgs({
    options: { only: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
  })
  if (values.help === true) return void process.stdout.write(USAGE)
  const only = values.only?.split(',').map(Number)
  const all = [...WRITTEN_CASES, ...NEIGHBOR_CASES].toSorted((a, b) => a.number - b.number)
  const wanted = all.filter(({ number }) => only?.includes(number) ?? true)
  let failed = 0
  for (const each of wanted) if (!(await show(each))) failed += 1
  process.stdout.write(`\n${wanted.length - failed} passed, ${failed} failed\n`)
  process.exitCode = failed === 0 && wanted.length > 0 ? 0 : 1
}

/** Whether every command said what it must. */
const show = async ({ number, mistake, site: options = {}, play }: Misconfiguration) => {
  const site = await startSite(options)
  let error: Error | undefined
  await play(site).catch((thrown: unknown) => (error = asError(thrown)))
  await site.stop()
  process.stdout.write(`\n${number}. ${mistake}\n`)
  for (const look of site.looks) process.stdout.write(describe(look))
  if (error !== undefined) process.stdout.write(`   ✗ ${error.message}\n`)
  return error === undefined && site.looks.length > 0 && site.looks.every(isTold)
}

const isTold = (look: Look): boolean =>
  look.exitCode === look.exitExpected && missing(look).length === 0

const missing = ({ told, lines }: Look): readonly string[] =>
  partsOf(told).filter((part) => !lines.some((line) => line.includes(part)))

const describe = (look: Look): string => {
  const { command, exitCode, exitExpected, lines, told } = look
  const decisive = lines.filter((line) => partsOf(told).some((part) => line.includes(part)))
  const ended = exitCode === null ? 'still running' : `exit ${exitCode}`
  return [
    `   $ ${command}   → ${ended}`,
    ...decisive.map((line) => `     ${line.trim().slice(0, SHOWN_MAX)}`),
    ...missing(look).map((part) => `   ✗ not said: ${part}`),
    ...(exitCode === exitExpected ? [] : [`   ✗ expected: exit ${exitExpected}`]),
    ...(isTold(look) ? [] : lines.map((line) => `     | ${line}`)),
    '',
  ].join('\n')
}

await main()
