/** Kubernetes objects as YAML has them, and the parts of them the suites ask for. */

import { parseAllDocuments } from 'yaml'

export type Labels = Readonly<Record<string, string>>

export type KubeObject = {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly labels?: Labels
    readonly annotations?: Labels
  }
  readonly spec?: Readonly<Record<string, unknown>>
  readonly data?: Readonly<Record<string, string>>
  readonly stringData?: Readonly<Record<string, string>>
  readonly rules?: readonly unknown[]
}

export type Container = {
  readonly name: string
  readonly image: string
  readonly imagePullPolicy?: string
  readonly command?: readonly string[]
  readonly args?: readonly string[]
  readonly env?: readonly { readonly name: string; readonly value?: string }[]
  readonly restartPolicy?: string
  readonly ports?: readonly { readonly name?: string; readonly containerPort: number }[]
  readonly volumeMounts?: readonly {
    readonly name: string
    readonly mountPath: string
    readonly subPath?: string
  }[]
  readonly securityContext?: Readonly<Record<string, unknown>>
  readonly startupProbe?: object
  readonly readinessProbe?: object
  readonly livenessProbe?: object
}

export type Volume = { readonly name: string } & Readonly<Record<string, unknown>>

export type PodTemplate = {
  readonly metadata?: { readonly labels?: Labels; readonly annotations?: Labels }
  readonly spec: {
    readonly serviceAccountName?: string
    readonly automountServiceAccountToken?: boolean
    readonly containers: readonly Container[]
    readonly initContainers?: readonly Container[]
    readonly volumes?: readonly Volume[]
  }
}

export const parseObjects = (text: string): readonly KubeObject[] =>
  parseAllDocuments(text).flatMap((document) => {
    const [error] = document.errors
    if (error !== undefined) throw error
    const object = document.toJS() as KubeObject | null
    return object === null ? [] : [object]
  })

export const ofKind = (objects: readonly KubeObject[], kind: string): readonly KubeObject[] =>
  objects.filter((each) => each.kind === kind)

/** The one object of a kind and name. */
export const pick = (objects: readonly KubeObject[], kind: string, name: string): KubeObject => {
  const [found, another] = ofKind(objects, kind).filter(({ metadata }) => metadata.name === name)
  if (found === undefined || another !== undefined) {
    const names = objects.map((each) => `${each.kind}/${each.metadata.name}`)
    throw new Error(
      `${found === undefined ? 'no' : 'more than one'} ${kind}/${name} among ${names.join()}`,
    )
  }
  return found
}

/** What a workload makes pods of, or a pod itself. */
export const templateOf = ({ kind, metadata, spec }: KubeObject): PodTemplate | undefined => {
  if (kind === 'Pod') return { metadata, spec } as unknown as PodTemplate
  return spec?.['template'] as PodTemplate | undefined
}

export const containersOf = ({ spec }: PodTemplate): readonly Container[] => [
  ...(spec.initContainers ?? []),
  ...spec.containers,
]
