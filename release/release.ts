/** `npm run release`: builds, publishes and signs the commit. With `-- --check` it only says what it refuses. */

import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { takeAllAway } from '../test/kit/leftovers.ts'
import { buildArtifacts } from './build.ts'
import { readCandidate } from './candidate.ts'
import { REGISTRY } from './product.ts'
import { findPrograms } from './programs.ts'
import { publish } from './publish.ts'
import { findRefusals } from './refusals.ts'

const OUTPUT = join(import.meta.dirname, '../.cache/release')

const say = (text: string): void => void process.stdout.write(`${text}\n`)

const { values } = parseArgs({ options: { check: { type: 'boolean', default: false } } })

const release = async (): Promise<void> => {
  const candidate = readCandidate(process.env)
  const refusals = findRefusals(candidate)
  for (const line of refusals) say(line)
  if (refusals.length > 0) {
    say('Nothing was built, and nothing was published.')
    process.exitCode = 1
    return
  }
  if (values.check) return
  const programs = await findPrograms()
  rmSync(OUTPUT, { recursive: true, force: true })
  const artifacts = await buildArtifacts({
    revision: candidate.revision,
    output: OUTPUT,
    helm: programs.helm,
    env: process.env,
  })
  const published = await publish(artifacts, { registry: REGISTRY, programs })
  say(`published and signed ${published.image}`)
  say(`published and signed ${published.chart}`)
}

try {
  await release()
} finally {
  await takeAllAway()
}
