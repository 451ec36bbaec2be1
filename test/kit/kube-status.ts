/** Answers of the API server: plain bodies and the `Status` objects it refuses with. */

import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'

export type Answer = {
  readonly status: number
  readonly headers: OutgoingHttpHeaders
  readonly body: string
}

const NO_CACHE = { 'cache-control': 'no-cache, private', 'content-type': 'application/json' }

export const json = (status: number, body: unknown, headers: OutgoingHttpHeaders = {}): Answer => ({
  status,
  headers: { ...NO_CACHE, ...headers },
  body: JSON.stringify(body),
})

type Failure = {
  readonly code: number
  readonly message: string
  readonly reason?: string
  readonly details?: Readonly<Record<string, unknown>>
}

export const statusObject = (failure: Failure): Record<string, unknown> => ({
  kind: 'Status',
  apiVersion: 'v1',
  metadata: {},
  status: 'Failure',
  message: failure.message,
  ...(failure.reason === undefined ? {} : { reason: failure.reason }),
  ...(failure.details === undefined ? {} : { details: failure.details }),
  code: failure.code,
})

export const failure = (reason: Failure): Answer => json(reason.code, statusObject(reason))

export const badRequest = (message: string): Answer =>
  failure({ code: 400, message, reason: 'BadRequest' })

export const unauthorized = (): Answer =>
  failure({ code: 401, message: 'Unauthorized', reason: 'Unauthorized' })

export const notFound = (resource: string, name: string): Answer =>
  failure({
    code: 404,
    message: `${resource} "${name}" not found`,
    reason: 'NotFound',
    details: { name, kind: resource },
  })

export const forbiddenPath = (user: string, path: string): Answer =>
  failure({
    code: 403,
    message: `forbidden: User "${user}" cannot get path "${path}"`,
    reason: 'Forbidden',
    details: {},
  })

/** A request as the authorizer sees it; without a namespace it is at the cluster scope. */
export type Access = {
  readonly user: string
  readonly verb: string
  readonly group: string
  readonly resource: string
  readonly namespace?: string
  readonly name?: string
}

export const forbidden = (access: Access): Answer => {
  const { group, resource, namespace, name } = access
  const qualified = group === '' ? resource : `${resource}.${group}`
  const subject = name === undefined ? qualified : `${qualified} "${name}"`
  const scope = namespace === undefined ? 'at the cluster scope' : `in the namespace "${namespace}"`
  return failure({
    code: 403,
    message:
      `${subject} is forbidden: User "${access.user}" cannot ${access.verb} resource ` +
      `"${resource}" in API group "${group}" ${scope}`,
    reason: 'Forbidden',
    details: {
      ...(name === undefined ? {} : { name }),
      ...(group === '' ? {} : { group }),
      kind: resource,
    },
  })
}

/** Who wrote the spec of a review, as every created object carries it. */
export const managedField = (request: IncomingMessage, nowMs: number, spec: ManagedSpec) => ({
  manager: request.headers['user-agent']?.split('/')[0] ?? 'unknown',
  operation: 'Update',
  apiVersion: spec.apiVersion,
  time: `${new Date(nowMs).toISOString().slice(0, 19)}Z`,
  fieldsType: 'FieldsV1',
  fieldsV1: { 'f:spec': spec.fields },
})

type ManagedSpec = {
  readonly apiVersion: string
  readonly fields: Readonly<Record<string, unknown>>
}

export const tooOld = (asked: number, oldest: number): Failure => ({
  code: 410,
  message: `too old resource version: ${asked} (${oldest})`,
  reason: 'Expired',
})
