/** What an attacker could do to a release in a registry that is theirs, one byte at a time. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { mustRun } from '../test/deploy/tools.ts'
import type { Artifacts } from './build.ts'
import { CHART, CHARTS, IMAGE } from './product.ts'
import type { Published, Target } from './publish.ts'

export type World = {
  readonly artifacts: Artifacts
  readonly target: Target
  readonly published: Published
  /** Where the registry keeps its blobs. */
  readonly disk: string
  readonly temporary: string
}

type Forgery = {
  readonly name: string
  readonly forge: () => Promise<unknown>
  readonly restore: () => Promise<unknown>
}

export const listForgeries = ({
  artifacts: { version, chart },
  target: { registry, programs },
  published,
  disk,
  temporary,
}: World): readonly Forgery[] => {
  const crane = (...args: readonly string[]) => mustRun({ path: programs.crane, args })
  const retag = (digest: string) => crane('tag', digest, version)
  const image = `${registry}/${IMAGE}:${version}`
  const layer = join(disk, 'sha256', chart.sha256)
  return [
    {
      name: 'an image of another user under the same tag',
      forge: () =>
        crane('mutate', '--platform=linux/amd64', '--user=65533:65532', `--tag=${image}`, image),
      restore: () => retag(published.image),
    },
    {
      name: 'a chart with one other byte under the same tag',
      forge: async () => {
        const file = await alterChart(chart.file, join(temporary, 'altered'))
        const args = ['push', file, `oci://${registry}/${CHARTS}`, '--plain-http']
        await mustRun({ path: programs.helm, args })
      },
      restore: () => retag(published.chart),
    },
    {
      name: 'a chart with one other byte under the signed digest',
      forge: async () => flipLastByte(layer),
      restore: async () => flipLastByte(layer),
    },
  ]
}

/** The same chart with another first digit in its values. */
const alterChart = async (file: string, directory: string): Promise<string> => {
  mkdirSync(directory)
  const tar = (...args: readonly string[]) => mustRun({ path: 'tar', args, cwd: directory })
  await tar('--extract', `--file=${file}`)
  const values = join(directory, CHART, 'values.yaml')
  const text = readFileSync(values, 'utf8')
  writeFileSync(
    values,
    text.replace(/\d/, (digit) => String((Number(digit) + 1) % 10)),
  )
  const altered = join(directory, basename(file))
  await tar('--create', '--gzip', `--file=${altered}`, CHART)
  return altered
}

const flipLastByte = (file: string): void => {
  const bytes = readFileSync(file)
  const at = bytes.length - 1
  bytes[at] = (bytes[at] ?? 0) ^ 1
  writeFileSync(file, bytes)
}
