/** Pushes the artifacts of a release to a registry, signs them there, and only then gives them the version's tag. */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mustRun, run } from '../test/deploy/tools.ts'
import { keepTrackOf } from '../test/kit/leftovers.ts'
import type { Artifacts } from './build.ts'
import { startRegistry } from './local-registry.ts'
import { CHART, CHARTS, IMAGE } from './product.ts'
import type { Programs } from './programs.ts'

const PUSH_MS_MAX = 15 * 60_000

export type Target = {
  /** Host, and the path below it: `ghcr.io/openclaw-k8s`. */
  readonly registry: string
  /** How cosign signs; without arguments by the identity of the workflow that it runs in. */
  readonly signer?: readonly string[]
  readonly programs: Programs
}

/** What the registry has now, each by its digest. */
export type Published = { readonly image: string; readonly chart: string }

/** Rejects, and changes no tag, where the version is published already with another content. */
export const publish = async (artifacts: Artifacts, target: Target): Promise<Published> => {
  const { registry, programs } = target
  const { version, image } = artifacts
  const must = (path: string, ...args: readonly string[]) => mustRun({ path, args }, PUSH_MS_MAX)
  const staged = await stageChart(artifacts, programs)
  try {
    const [imageName, chartName] = [`${registry}/${IMAGE}`, `${registry}/${CHARTS}/${CHART}`]
    const published = {
      image: `${imageName}@${image.digest}`,
      chart: `${chartName}@${staged.digest}`,
    }
    await refuseOther(programs.crane, `${imageName}:${version}`, image.digest)
    await refuseOther(programs.crane, `${chartName}:${version}`, staged.digest)
    await must(programs.crane, 'push', image.layout, published.image)
    await must(programs.crane, 'copy', staged.reference, published.chart)
    await sign(artifacts, published, target)
    // Until here nobody finds them by the version, and so nobody finds them unsigned.
    for (const each of [published.image, published.chart])
      await must(programs.crane, 'tag', each, version)
    return published
  } finally {
    await staged.release()
  }
}

/** Helm pushes by tag only: to a registry of this process, and from there it goes by its digest. */
const stageChart = async ({ chart }: Artifacts, programs: Programs) => {
  const disk = mkdtempSync(join(tmpdir(), 'release-chart-'))
  const remove = keepTrackOf(async () => rmSync(disk, { recursive: true, force: true }))
  const { address, stop } = await startRegistry(programs.crane, disk)
  const release = async (): Promise<void> => {
    await stop()
    await remove()
  }
  try {
    const args = ['push', chart.file, `oci://${address}/${CHARTS}`, '--plain-http']
    const said = await mustRun({ path: programs.helm, args })
    // Never asked of a registry: that would be a signature for whatever the tag names by then.
    const [digest] = /(?<=^Digest: )sha256:[0-9a-f]{64}$/m.exec(said) ?? []
    if (digest === undefined) throw new Error(`helm names no digest of ${chart.file}: ${said}`)
    return { digest, reference: `${address}/${CHARTS}/${CHART}@${digest}`, release }
  } catch (error) {
    await release()
    throw error
  }
}

/** A version never changes: who has verified it must not get another one later. */
const refuseOther = async (crane: string, name: string, digest: string): Promise<void> => {
  const { code, stdout, stderr } = await run({ path: crane, args: ['digest', name] })
  if (code !== 0) {
    if (/\b(?:MANIFEST|NAME)_UNKNOWN\b/.test(stderr)) return
    throw new Error(`whether ${name} is published already cannot be told: ${stderr}`)
  }
  if (stdout.trim() === digest) return
  throw new Error(
    `${name} is published already as ${stdout.trim()}, and this is ${digest}: release another version`,
  )
}

const sign = async (
  { sbom, provenance }: Artifacts,
  published: Published,
  target: Target,
): Promise<void> => {
  const { cosign } = target.programs
  const signer = [...(target.signer ?? []), '--yes']
  const must = (command: string, ...args: readonly string[]) =>
    mustRun({ path: cosign, args: [command, ...signer, ...args] }, PUSH_MS_MAX)
  const attest = (type: string, predicate: string, subject: string) =>
    must('attest', '--type', type, '--predicate', predicate, subject)
  await must('sign', '--recursive', published.image)
  await must('sign', published.chart)
  await attest('cyclonedx', sbom.file, published.image)
  await attest('slsaprovenance1', provenance, published.image)
  await attest('slsaprovenance1', provenance, published.chart)
}
