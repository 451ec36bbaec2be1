/** Pushes the artifacts of a release to a registry, and signs what the registry then has. */

import { mustRun } from '../test/deploy/tools.ts'
import type { Artifacts } from './build.ts'
import { CHART, CHARTS, IMAGE } from './product.ts'
import type { Programs } from './programs.ts'

const PUSH_MS_MAX = 15 * 60_000

export type Target = {
  /** Host, and the path below it: `ghcr.io/openclaw-k8s`. */
  readonly registry: string
  /** A registry on this machine has no TLS. */
  readonly isPlain?: boolean
  /** How cosign signs; without arguments by the identity of the workflow that it runs in. */
  readonly signer?: readonly string[]
  readonly programs: Programs
}

/** What the registry has now, each by its digest. */
export type Published = { readonly image: string; readonly chart: string }

export const publish = async (artifacts: Artifacts, target: Target): Promise<Published> => {
  const { registry, programs } = target
  const { version, image, chart, sbom, provenance } = artifacts
  const run = (path: string, ...args: readonly string[]) => mustRun({ path, args }, PUSH_MS_MAX)
  await run(programs.crane, 'push', image.layout, `${registry}/${IMAGE}:${version}`)
  const plain = target.isPlain === true ? ['--plain-http'] : []
  await run(programs.helm, 'push', chart.file, `oci://${registry}/${CHARTS}`, ...plain)
  const chartName = `${registry}/${CHARTS}/${CHART}`
  const chartDigest = await run(programs.crane, 'digest', `${chartName}:${version}`)
  const published = {
    image: `${registry}/${IMAGE}@${image.digest}`,
    chart: `${chartName}@${chartDigest.trim()}`,
  }
  const sign = [...(target.signer ?? []), '--yes']
  await run(programs.cosign, 'sign', ...sign, '--recursive', published.image)
  await run(programs.cosign, 'sign', ...sign, published.chart)
  const attest = async (type: string, predicate: string, subject: string) => {
    const what = ['--type', type, '--predicate', predicate, subject]
    await run(programs.cosign, 'attest', ...sign, ...what)
  }
  await attest('cyclonedx', sbom.file, published.image)
  await attest('slsaprovenance1', provenance, published.image)
  await attest('slsaprovenance1', provenance, published.chart)
  return published
}
