/** Makes all artifacts of a release: image, chart, bill of materials and provenance. Publishes nothing. */

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { keepTrackOf } from '../test/kit/leftovers.ts'
import { packChart } from './chart.ts'
import { buildLayout, type Recipe } from './image.ts'
import { findReferences } from './pins.ts'
import type { Source } from './product.ts'
import { describeBuild, type GitHub } from './provenance.ts'
import { addBase, findGaps, keepBundled, listMaterials, validateBom, type Bom } from './sbom.ts'
import { extractSource } from './source.ts'

const LICENCES = 'app/THIRD_PARTY_LICENSES'

/** What was made, with the names of its files. */
export type Artifacts = {
  readonly version: string
  readonly image: { readonly layout: string; readonly digest: string }
  readonly chart: { readonly file: string; readonly sha256: string }
  readonly sbom: { readonly file: string; readonly components: number }
  readonly provenance: string
}

export type BuildOptions = Omit<Recipe, 'source'> & {
  readonly revision: string
  /** A directory; it is made. */
  readonly output: string
  readonly helm: string
  readonly env: GitHub
}

/** Builds a commit of its files alone, whatever is checked out meanwhile. */
export const buildArtifacts = async ({
  revision,
  output,
  helm,
  env,
  ...recipe
}: BuildOptions): Promise<Artifacts> => {
  const temporary = mkdtempSync(join(tmpdir(), 'release-'))
  const release = keepTrackOf(async () => rmSync(temporary, { recursive: true }))
  try {
    mkdirSync(output, { recursive: true })
    const source = extractSource(revision, join(temporary, 'source'))
    const sbom = join(output, 'sbom.cdx.json')
    let bom: Bom | undefined
    const layout = join(output, 'image')
    const digest = buildLayout({ source, ...recipe }, layout, (roots) => {
      bom = describeContents(source, roots)
    })
    write(sbom, bom)
    await validateBom(readFileSync(sbom, 'utf8'))
    const provenance = join(output, 'provenance.json')
    const dockerfile = readFileSync(join(source.directory, 'Dockerfile.sidecar'), 'utf8')
    write(provenance, describeBuild(source, findReferences(dockerfile), env))
    const { version } = source
    return {
      version,
      image: { layout, digest },
      chart: await packChart(source, { helm, digest, output }),
      sbom: { file: sbom, components: bom?.components.length ?? 0 },
      provenance,
    }
  } finally {
    await release()
  }
}

const describeContents = (source: Source, roots: readonly string[]): Bom => {
  const licences = roots.map((root) => readFileSync(join(root, LICENCES), 'utf8'))
  const bom = addBase(keepBundled(listMaterials(source), licences), roots)
  const gaps = licences.flatMap((each) => findGaps(bom, each))
  if (gaps.length > 0) throw new Error(`the bill of materials has gaps:\n${gaps.join('\n')}`)
  return bom
}

const write = (file: string, value: unknown): void =>
  writeFileSync(file, `${JSON.stringify(value, undefined, 2)}\n`)
