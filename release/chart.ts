/** The chart of a commit, which names the image that was built with it by its digest. */

import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { mustRun } from '../test/deploy/tools.ts'
import { CHART, IMAGE, REGISTRY, type Source } from './product.ts'

const UNPUBLISHED = `    repository: ${IMAGE}\n`
const UNPINNED = /(# -- Digest of the sidecar's image, [^\n]*\n {4}digest: )""\n/

/** The chart's values with the published image; throws where they are not as expected. */
export const nameImage = (values: string, digest: string): string => {
  const named = values
    .replace(UNPUBLISHED, `    repository: ${REGISTRY}/${IMAGE}\n`)
    .replace(UNPINNED, `$1${digest}\n`)
  const expected = values.length + `${REGISTRY}/`.length + digest.length - '""'.length
  if (named.length !== expected) throw new Error("values.yaml does not have the sidecar's image")
  return named
}

/** The packed chart: where it is, and its checksum. */
export const packChart = async (
  source: Source,
  { helm, digest, output }: { helm: string; digest: string; output: string },
): Promise<{ readonly file: string; readonly sha256: string }> => {
  const chart = join(source.directory, 'charts', CHART)
  const values = join(chart, 'values.yaml')
  writeFileSync(values, nameImage(readFileSync(values, 'utf8'), digest))
  // Helm keeps the times of the files, unless this is set.
  const env = { SOURCE_DATE_EPOCH: String(source.time) }
  utimesSync(values, source.time, source.time)
  mkdirSync(output, { recursive: true })
  await mustRun({ path: helm, args: ['package', chart, '--destination', output], env })
  const file = join(output, `${CHART}-${source.version}.tgz`)
  // When it is pushed, its manifest names this time.
  utimesSync(file, source.time, source.time)
  return { file, sha256: createHash('sha256').update(readFileSync(file)).digest('hex') }
}
