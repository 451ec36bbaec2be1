/** The definitions of other projects' kinds the chart can make objects of, from those projects themselves. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Api, Json } from '../cluster/api.ts'
import { waitForProcess } from '../kit/wait.ts'
import { keepTrackOf } from '../kit/leftovers.ts'
import { parseObjects } from './objects.ts'
import { fetchModule } from './tools.ts'

const SOURCES = [
  {
    module: 'github.com/prometheus-operator/prometheus-operator@v0.85.0',
    sum: 'h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=',
    files: ['podmonitors', 'prometheusrules', 'servicemonitors'].map(
      (name) => `example/prometheus-operator-crd/monitoring.coreos.com_${name}.yaml`,
    ),
  },
  {
    module: 'github.com/cert-manager/cert-manager@v1.21.2',
    sum: 'h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=',
    files: ['deploy/crds/cert-manager.io_certificates.yaml'],
  },
  {
    module: 'github.com/kedacore/keda/v2@v2.18.1',
    sum: 'h1:h6bRt/IOxxtZpJlHSqhdH/lcInH7Z9obxg/JvWOmGAw=',
    files: ['config/crd/bases/keda.sh_scaledobjects.yaml'],
  },
]

export const CRD_API_VERSIONS = [
  'monitoring.coreos.com/v1',
  'cert-manager.io/v1',
  'keda.sh/v1alpha1',
] as const

const CRDS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
const SERVED_WITHIN_MS = 30_000

/** Adds them to the server until they are removed; says why if that is impossible. */
export const installCrds = async (api: Api): Promise<string | undefined> => {
  for (const { files, ...source } of SOURCES) {
    const fetched = await fetchModule(source)
    if ('why' in fetched) return fetched.why
    for (const file of files) {
      for (const crd of parseObjects(readFileSync(join(fetched.path, file), 'utf8'))) {
        await installCrd(api, crd.metadata.name, crd)
      }
    }
  }
  for (const version of CRD_API_VERSIONS)
    await waitForProcess(version, SERVED_WITHIN_MS, isServed(api, version))
  return undefined
}

const installCrd = async (api: Api, name: string, crd: object): Promise<void> => {
  const path = `${CRDS}/${name}`
  // One that is not ours stays as it is.
  if ((await api.call({ method: 'GET', path })).status === 200) return
  await api.must({ method: 'POST', path: CRDS, body: crd })
  keepTrackOf(() => api.call({ method: 'DELETE', path }))
}

/** Published too: what is served is in the server's OpenAPI a little later. */
const isServed = (api: Api, groupVersion: string) => async (): Promise<boolean> => {
  const { status } = await api.call({ method: 'GET', path: `/apis/${groupVersion}` })
  if (status !== 200) return false
  const { paths } = (await api.must({ method: 'GET', path: '/openapi/v3' })) as { paths: Json }
  return `apis/${groupVersion}` in paths
}
