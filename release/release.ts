/** `npm run release`: builds the commit, pushes it to the registry, and signs it as the workflow that runs this. */

import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { findHelm } from '../test/deploy/tools.ts'
import { takeAllAway } from '../test/kit/leftovers.ts'
import { buildArtifacts } from './build.ts'
import { readCandidate } from './candidate.ts'
import { REGISTRY } from './product.ts'
import { publish } from './publish.ts'
import { findRefusals } from './refusals.ts'
import { buildGoTool } from './tools.ts'

const OUTPUT = join(import.meta.dirname, '../.cache/release')

const say = (text: string): void => void process.stdout.write(`${text}\n`)

const release = async (): Promise<void> => {
  const candidate = readCandidate()
  const refusals = findRefusals(candidate, candidate.versions['package.json'] ?? '')
  for (const line of refusals) say(line)
  if (refusals.length > 0) {
    say('Nothing was built, and nothing was published.')
    process.exitCode = 1
    return
  }
  const helm = await findHelm()
  if ('why' in helm) throw new Error(helm.why)
  const programs = {
    helm: helm.path,
    crane: await buildGoTool('crane'),
    cosign: await buildGoTool('cosign'),
  }
  rmSync(OUTPUT, { recursive: true, force: true })
  const artifacts = await buildArtifacts({ output: OUTPUT, env: process.env })
  const published = await publish(artifacts, { registry: REGISTRY, programs })
  say(`published and signed ${published.image}`)
  say(`published and signed ${published.chart}`)
}

try {
  await release()
} finally {
  await takeAllAway()
}
