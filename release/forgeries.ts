/** What somebody could do who can write to the registry: move a tag to something that differs in one byte. */

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
  temporary,
}: World): readonly Forgery[] => {
  const crane = (...args: readonly string[]) => mustRun({ path: programs.crane, args })
  const retag = (digest: string) => crane('tag', digest, version)
  const image = `${registry}/${IMAGE}:${version}`
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
