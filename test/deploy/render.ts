/** What the chart makes of some values, as objects. */

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { CRD_API_VERSIONS } from './crds.ts'
import { parseObjects, type KubeObject } from './objects.ts'
import type { DeployRig } from './deploy-rig.ts'

export const CHART = join(import.meta.dirname, '../../charts/openclaw')
export const NAMESPACE = 'openclaw'

export type Rendering = {
  readonly release?: string
  readonly namespace?: string
  /** Values files. */
  readonly values?: readonly string[]
  /** `path=value` each; a list or an object as JSON. */
  readonly set?: readonly string[]
  /** As on a cluster that knows the optional kinds. */
  readonly withCrds?: boolean
}

/** The values files of the chart's features. */
export const CI_VALUES: readonly string[] = readdirSync(join(CHART, 'ci'))
  .filter((name) => name.endsWith('-values.yaml'))
  .toSorted()

export const templateArgs = (rendering: Rendering = {}): readonly string[] => [
  rendering.release ?? 'openclaw',
  CHART,
  `--namespace=${rendering.namespace ?? NAMESPACE}`,
  ...(rendering.values ?? []).map((file) => `--values=${file}`),
  ...(rendering.set ?? []).map((each) => `--set${/=[[{]/.test(each) ? '-json' : ''}=${each}`),
]

const CRD_FLAGS = CRD_API_VERSIONS.map((version) => `--api-versions=${version}`)

export const renderText = (rig: DeployRig, rendering: Rendering = {}): Promise<string> =>
  rig.helm(
    'template',
    ...templateArgs(rendering),
    ...(rendering.withCrds === false ? [] : CRD_FLAGS),
  )

export const render = async (
  rig: DeployRig,
  rendering?: Rendering,
): Promise<readonly KubeObject[]> => parseObjects(await renderText(rig, rendering))
