/** Whether RBAC lets the sidecar review tokens and read pods and ServiceAccounts. */

import { messageOf } from '../lib/errors.ts'
import { scopesOf } from '../authz/watch-scopes.ts'
import type { KubeClient } from '../kube/client.ts'
import type { Scope } from '../kube/scope.ts'
import {
  ALLOW_REVIEWS,
  fail,
  listed,
  ok,
  remedyFor,
  type ClusterCheck,
  type Finding,
} from './finding.ts'

/** As in the spec of a SelfSubjectAccessReview; without a namespace it means the whole cluster. */
type Right = {
  readonly verb: string
  readonly resource: string
  readonly group?: string
  readonly namespace?: string
  readonly name?: string
}

const PATH = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews'
const REVIEW: Right = {
  verb: 'create',
  group: 'authentication.k8s.io',
  resource: 'tokenreviews',
}

export async function examineRights(check: ClusterCheck): Promise<readonly Finding[]> {
  const { client, config, deadlineMs } = check
  const rights = scopesOf(config.k8sTrust).flatMap(rightsIn)
  // Several ServiceAccounts of a namespace need the same pods.
  const needed = new Map([REVIEW, ...rights].map((right) => [JSON.stringify(right), right]))
  try {
    const answers = await Promise.all(
      [...needed.values()].map(async (right) => ({
        right,
        isGranted: await ask(client, right, deadlineMs),
      })),
    )
    const missing = answers.filter(({ isGranted }) => !isGranted).map(({ right }) => right)
    if (missing.length > 0) return describeMissing(missing)
    return [ok('rights', `can create tokenreviews${describeSeen(rights)}`)]
  } catch (error) {
    const refusal =
      'Bind the ClusterRole system:basic-user to all ServiceAccounts, as clusters do by default.'
    return [fail('rights', messageOf(error), remedyFor(error, refusal))]
  }
}

/** Exactly what is used: list and watch of one ServiceAccount can be granted by name. */
const rightsIn = ({ namespace, serviceAccount }: Scope): readonly Right[] => {
  const where = namespace === undefined ? {} : { namespace }
  const which = serviceAccount === undefined ? {} : { name: serviceAccount }
  return [
    ...['get', 'list', 'watch'].map((verb) => ({ verb, resource: 'pods', ...where })),
    ...['list', 'watch'].map((verb) => ({ verb, resource: 'serviceaccounts', ...where, ...which })),
  ]
}

async function ask(client: KubeClient, right: Right, deadlineMs: number): Promise<boolean> {
  const body = {
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SelfSubjectAccessReview',
    spec: { resourceAttributes: right },
  }
  const answer = await client.request({ method: 'POST', path: PATH, body, deadlineMs })
  const { status } = (answer.body ?? {}) as { status?: { allowed?: unknown } }
  return status?.allowed === true
}

/** One line for TokenReviews, and one for each namespace. */
function describeMissing(missing: readonly Right[]): readonly Finding[] {
  const byPlace = Map.groupBy(missing, ({ namespace, group }) => group ?? placeOf(namespace))
  return [...byPlace].map(([place, rights]) => {
    const verbs = Map.groupBy(rights, ({ resource }) => resource)
    const what = [...verbs]
      .map(([resource, some]) => `${listVerbs(some)} ${resource}`)
      .join(', or ')
    if (place === REVIEW.group) {
      return fail('rights', `cannot ${what}`, ALLOW_REVIEWS)
    }
    const remedy =
      'Bind a role there that can get, list and watch pods, and list and watch ' +
      "serviceaccounts, to the sidecar's ServiceAccount."
    return fail('rights', `cannot ${what} in ${place}`, remedy)
  })
}

const listVerbs = (rights: readonly Right[]): string =>
  [...new Set(rights.map(({ verb }) => verb))].join(', ')

const placeOf = (namespace: string | undefined): string =>
  namespace === undefined ? 'the whole cluster' : `namespace ${namespace}`

function describeSeen(rights: readonly Right[]): string {
  const places = [...new Set(rights.map(({ namespace }) => placeOf(namespace)))]
  if (places.length === 0) return ''
  return `, and read pods and ServiceAccounts in ${listed(places)}`
}
