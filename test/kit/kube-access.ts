/** Who is allowed to do what at the embedded API server, and the access reviews that report it. */

import type { IncomingMessage } from 'node:http'
import { failure, json, managedField } from './kube-status.ts'
import type { Access, Answer } from './kube-status.ts'

/** What the sidecar's ServiceAccount may do; the demo's RBAC grants all of it. */
export type Rbac = {
  readonly tokenReviews: boolean
  readonly pods: boolean
  readonly serviceAccounts: boolean
  /** Where pods and ServiceAccounts may be seen; in the whole cluster unless named. */
  readonly namespaces?: readonly string[]
  /** Whether it may ask what others may do, which only other proxies do. Default: it may not. */
  readonly subjectAccessReviews?: boolean
  /** What others may do; nothing unless named. */
  readonly grants?: readonly Access[]
  /** Whether callers without a credential may fetch the signing keys. Default: they may not. */
  readonly publicKeys?: boolean
}

type Authorizing = {
  readonly sidecarUser: string
  readonly rbac: Rbac
  readonly nowMs: () => number
}

type Attributes = Partial<Record<'namespace' | 'verb' | 'group' | 'resource' | 'name', string>>
type SubjectSpec = {
  readonly user?: string
  readonly resourceAttributes?: Attributes & { readonly subresource?: string }
}

const SEEING = ['get', 'list', 'watch']
const GROUP = 'authorization.k8s.io'

export const isAllowed = ({ sidecarUser, rbac }: Authorizing, access: Access): boolean => {
  const { user, verb, group, resource, namespace = '' } = access
  if (user !== sidecarUser) return isGrantedTo(rbac, access)
  if (group === GROUP && resource === 'subjectaccessreviews') {
    return rbac.subjectAccessReviews === true && verb === 'create'
  }
  if (group === 'authentication.k8s.io' && resource === 'tokenreviews') {
    return rbac.tokenReviews && verb === 'create'
  }
  const isGranted =
    (resource === 'pods' && rbac.pods) || (resource === 'serviceaccounts' && rbac.serviceAccounts)
  const isThere = rbac.namespaces === undefined || rbac.namespaces.includes(namespace)
  return group === '' && isGranted && isThere && SEEING.includes(verb)
}

const isGrantedTo = ({ grants = [] }: Rbac, access: Access): boolean =>
  grants.some(
    ({ user, verb, group, resource, namespace, name }) =>
      user === access.user &&
      verb === access.verb &&
      group === access.group &&
      resource === access.resource &&
      namespace === access.namespace &&
      name === access.name,
  )

/** Whether somebody else may do something. The real answer has more metadata, which no caller reads. */
export const reviewSubjectAccess = (
  authorizing: Authorizing,
  spec: Readonly<Record<string, unknown>>,
): Answer => {
  const { user = '', resourceAttributes } = spec as SubjectSpec
  if (resourceAttributes === undefined) return exactlyOne()
  const { verb = '', group = '', resource = '', subresource, namespace, name } = resourceAttributes
  const access = {
    user,
    verb,
    group,
    resource: subresource ? `${resource}/${subresource}` : resource,
    ...(namespace ? { namespace } : {}),
    ...(name ? { name } : {}),
  }
  return json(201, {
    kind: 'SubjectAccessReview',
    apiVersion: `${GROUP}/v1`,
    metadata: {},
    spec,
    status: { allowed: isAllowed(authorizing, access) },
  })
}

/** As kube-apiserver v1.35.4 answers it: a refusal under RBAC alone gives no reason. */
export const reviewAccess = (
  authorizing: Authorizing,
  request: IncomingMessage,
  user: string,
  spec: Readonly<Record<string, unknown>>,
): Answer => {
  const attributes = spec['resourceAttributes'] as Attributes | undefined
  if (attributes === undefined) return exactlyOne()
  const { verb = '', group = '', resource = '', namespace } = attributes
  const access = { user, verb, group, resource, ...(namespace ? { namespace } : {}) }
  const fields = Object.keys(attributes).sort()
  return json(201, {
    kind: 'SelfSubjectAccessReview',
    apiVersion: `${GROUP}/v1`,
    metadata: {
      managedFields: [
        managedField(request, authorizing.nowMs(), {
          apiVersion: `${GROUP}/v1`,
          fields: {
            'f:resourceAttributes': {
              '.': {},
              ...Object.fromEntries(fields.map((name) => [`f:${name}`, {}])),
            },
          },
        }),
      ],
    },
    spec: { resourceAttributes: inOrder(attributes) },
    status: isAllowed(authorizing, access)
      ? { allowed: true, reason: reasonOf(access) }
      : { allowed: false },
  })
}

const ORDER = ['namespace', 'verb', 'group', 'resource', 'name'] as const

const inOrder = (attributes: Attributes): Attributes =>
  Object.fromEntries(
    ORDER.flatMap((name) => (attributes[name] === undefined ? [] : [[name, attributes[name]]])),
  )

const reasonOf = ({ user, namespace }: Access): string => {
  const [, , home = '', account = ''] = user.split(':')
  const role = 'openclaw-auth-sidecar'
  const binding =
    namespace === undefined
      ? `ClusterRoleBinding "${role}" of ClusterRole "${role}"`
      : `RoleBinding "${role}/${namespace}" of Role "${role}"`
  return `RBAC: allowed by ${binding} to ServiceAccount "${account}/${home}"`
}

const exactlyOne = (): Answer => {
  const field = 'spec.resourceAttributes'
  const message =
    'Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified'
  return failure({
    code: 422,
    message: `.${GROUP} "" is invalid: ${field}: ${message}`,
    reason: 'Invalid',
    details: { group: GROUP, causes: [{ reason: 'FieldValueInvalid', message, field }] },
  })
}
