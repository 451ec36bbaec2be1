/** Writes `manifests/` from the chart, so that both agree; `--check` only compares. */

import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Document, isMap, parseAllDocuments, parseDocument } from 'yaml'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const CHART = join(ROOT, 'charts/openclaw')
const NAMESPACE = 'openclaw'

/** What a person makes by hand before the install, since it holds secrets. */
const SECRET = ['gateway.existingSecret=openclaw-gateway-token']
const SEED = ['sidecar.deviceSeedSecret.name=openclaw-gateway-token']
const WHOLE = [...SECRET, ...SEED, 'tests.enabled=false']
const SIDECAR_ONLY = [...WHOLE, 'gateway.enabled=false', 'existingGateway.name=any']

/** Labels and annotations that mean something to Helm only, or name a digest of what may be edited. */
const HELM_LABELS = ['helm.sh/chart', 'app.kubernetes.io/managed-by']
const DIGEST = /^checksum\//

type File = {
  readonly path: string
  readonly head: string
  /** Templates of the chart whose objects it holds. */
  readonly templates: readonly string[]
}

const FILES: readonly File[] = [
  {
    path: 'rbac.yaml',
    head: 'ServiceAccounts of the gateway and the workers, and the permissions of the sidecar at the API server.\nRepeat the Role and the RoleBinding in each further namespace of the allow-list.',
    templates: ['rbac.yaml'],
  },
  {
    path: 'gateway-config.yaml',
    head: `Configuration of the gateway and the sidecar. The Secret with the gateway's token and the device
seed is not part of it, so that applying this file again does not overwrite it. Create it once:

  kubectl -n ${NAMESPACE} create secret generic openclaw-gateway-token \\
    --from-literal=token="$(openssl rand -hex 32)" --from-literal=device-seed="$(openssl rand -hex 32)"

It then looks like this:

  apiVersion: v1
  kind: Secret
  metadata: { name: openclaw-gateway-token, namespace: ${NAMESPACE} }
  type: Opaque
  stringData: { token: <64 hex digits>, device-seed: <64 hex digits> }`,
    templates: ['gateway-config.yaml', 'sidecar-config.yaml'],
  },
  {
    path: 'gateway.yaml',
    head: 'The gateway with the sidecar in front of it, and the Service that leads workers to the sidecar.',
    templates: ['gateway.yaml', 'gateway-service.yaml'],
  },
  {
    path: 'worker.yaml',
    head: 'The workers. The autoscaler decides how many there are, so the Deployment names no number.',
    templates: ['worker.yaml'],
  },
  {
    path: 'networkpolicy.yaml',
    head: "Which peers can reach the gateway's pod and the workers. Requires a network plug-in that enforces policies.",
    templates: ['networkpolicy.yaml'],
  },
]

const COMPONENT: readonly File[] = [
  {
    path: 'components/sidecar/rbac.yaml',
    head: 'ServiceAccounts of the gateway and the workers, and the permissions of the sidecar at the API server.',
    templates: ['rbac.yaml'],
  },
  {
    path: 'components/sidecar/network.yaml',
    head: 'The Service that leads workers to the sidecar, and the NetworkPolicy for its port.',
    templates: ['gateway-service.yaml', 'networkpolicy.yaml'],
  },
]

const NAMESPACE_MANIFEST = `# The namespace of all objects. Its pods comply with the strictest Pod Security Standard.
apiVersion: v1
kind: Namespace
metadata:
  name: ${NAMESPACE}
  labels:
    app.kubernetes.io/part-of: openclaw
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/enforce-version: latest
    pod-security.kubernetes.io/warn: restricted
`

type Rendered = { readonly template: string; readonly document: Document }

/** Every file under `manifests/` that comes from the chart, by its path there. */
export const renderManifests = (helm: string): ReadonlyMap<string, string> => {
  const whole = renderChart(helm, WHOLE)
  const sidecarOnly = renderChart(helm, SIDECAR_ONLY)
  return new Map([
    ['namespace.yaml', NAMESPACE_MANIFEST],
    ...FILES.map((file) => [file.path, collect(file, whole)] as const),
    ...COMPONENT.map((file) => [file.path, collect(file, sidecarOnly)] as const),
    ['components/sidecar/config.yaml', dataOf(sidecarOnly, 'sidecar-config.yaml', 'config.yaml')],
    ['components/sidecar/patch.yaml', patchOf(sidecarOnly)],
  ])
}

const renderChart = (helm: string, set: readonly string[]): readonly Rendered[] => {
  const flags = set.flatMap((each) => ['--set', each])
  const args = ['template', 'openclaw', CHART, '--namespace', NAMESPACE, ...flags]
  const text = execFileSync(helm, args, { encoding: 'utf8', maxBuffer: 16 * 1024 * 1024 })
  return text.split(/^---$/m).flatMap((part) => {
    const template = /^# Source: openclaw\/templates\/(.+)$/m.exec(part)?.[1]
    if (template === undefined) return []
    return parseAllDocuments(part.replace(/^# Source: .*\n/m, '')).map((document) => ({
      template,
      document: cleanse(document as Document),
    }))
  })
}

const cleanse = (document: Document): Document => {
  for (const at of [['metadata'], ['spec', 'template', 'metadata']]) {
    strip(document, [...at, 'labels'], (key) => HELM_LABELS.includes(key))
    strip(document, [...at, 'annotations'], (key) => DIGEST.test(key))
  }
  return document
}

/** Takes keys out of a map, and the map with its last one. */
const strip = (
  document: Document,
  path: readonly string[],
  isUnwanted: (key: string) => boolean,
) => {
  const map = document.hasIn(path) ? document.getIn(path) : undefined
  if (!isMap(map)) return
  map.items = map.items.filter(({ key }) => !isUnwanted(String(key)))
  if (map.items.length === 0) document.deleteIn(path)
}

const print = (document: Document): string => document.toString({ lineWidth: 0 }).trimStart()

const comment = (text: string): string => text.replaceAll(/^/gm, '# ').replaceAll(/ +$/gm, '')

const collect = ({ head, templates }: File, rendered: readonly Rendered[]): string => {
  const documents = templates.flatMap((name) =>
    rendered.filter(({ template }) => template === name),
  )
  return `${comment(head)}\n---\n${documents.map(({ document }) => print(document)).join('---\n')}`
}

const dataOf = (rendered: readonly Rendered[], template: string, key: string): string => {
  const found = rendered.find((each) => each.template === template)
  return String(found?.document.getIn(['data', key]))
}

/** As a kustomize patch, which wants to be a whole object; its target is what the component says. */
const patchOf = (rendered: readonly Rendered[]): string => {
  const document = parseDocument(dataOf(rendered, 'sidecar-patch.yaml', 'patch.yaml'))
  const whole = new Document({ apiVersion: 'apps/v1', kind: 'any', metadata: { name: 'any' } })
  whole.set('spec', document.get('spec'))
  cleanse(whole)
  return `${comment("The sidecar's additions to a gateway's pod template.")}\n${print(whole)}`
}

/** The line a person is told to type, out of the comment that tells it. */
export const secretCommand = (text: string): string => {
  const [command] =
    /kubectl -n \S+ create secret [^]*?\n#?\n/.exec(text.replaceAll(/^# ?/gm, '')) ?? []
  if (command === undefined) throw new Error('no line that creates a Secret')
  return command
}

const main = (): void => {
  const isCheck = process.argv.includes('--check')
  for (const [path, text] of renderManifests(process.env['HELM'] ?? 'helm')) {
    const file = join(ROOT, 'manifests', path)
    if (!isCheck) {
      mkdirSync(dirname(file), { recursive: true })
      writeFileSync(file, text)
    } else if (readFileSync(file, 'utf8') !== text) {
      process.stderr.write(`manifests/${path} is not what the chart says: run npm run manifests\n`)
      process.exitCode = 1
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main()
