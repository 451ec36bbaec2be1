/** What the embedded API server answers: who asks, what for, and whether RBAC lets them. */

import type { IncomingMessage } from 'node:http'
import { isAllowed, reviewAccess, reviewSubjectAccess } from './kube-access.ts'
import type { Rbac } from './kube-access.ts'
import { publicJwk } from './kube-tokens.ts'
import { reviewToken } from './kube-review.ts'
import type { Reviewing, ReviewStatus } from './kube-review.ts'
import * as answers from './kube-status.ts'
import type { Answer } from './kube-status.ts'
import type { Resource } from './kube-store.ts'
import type { Route } from './kube-faults.ts'
import { listAnswer, selectionOf, withKind } from './kube-watch.ts'
import type { Selection } from './kube-watch.ts'

/** A success of the real one's token cache, which outlives the pod by up to its TTL. */
type CachedReview = { readonly status: ReviewStatus; readonly until: number }

export type Backend = Reviewing & {
  readonly jwksUri: string
  readonly gitVersion: string
  readonly successCacheMs: number
  readonly reviewCache: Map<string, CachedReview>
  readonly sidecarUser: string
  readonly sidecarTokens: ReadonlySet<string>
  readonly revokedTokens: ReadonlySet<string>
  rbac: Rbac
  /** Told of each token that a review finds good. */
  readonly onAuthenticated?: (token: string) => void
}

export type Call = {
  readonly request: IncomingMessage
  readonly url: URL
  readonly target: Target
  readonly body: string
}

export type Target = {
  readonly route: Route
  readonly resource?: Resource
  readonly namespace?: string
  readonly name?: string
}

const COLLECTION = /^\/api\/v1\/namespaces\/([^/]+)\/(pods|serviceaccounts)(?:\/([^/]+))?$/
const REVIEWS_PATH = '/apis/authentication.k8s.io/v1/tokenreviews'
const ACCESS_PATH = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews'
const SUBJECT_ACCESS_PATH = '/apis/authorization.k8s.io/v1/subjectaccessreviews'
const CACHED_REVIEWS_MAX = 10_000

const FIXED: Readonly<Record<string, Route>> = {
  [REVIEWS_PATH]: 'tokenReviews',
  [ACCESS_PATH]: 'accessReviews',
  [SUBJECT_ACCESS_PATH]: 'subjectAccessReviews',
  '/.well-known/openid-configuration': 'discovery',
  '/openid/v1/jwks': 'jwks',
  '/version': 'version',
  '/readyz': 'readyz',
}

export const targetOf = (url: URL): Target => {
  const fixed = FIXED[url.pathname]
  if (fixed !== undefined) return { route: fixed }
  const [, namespace, plural, name] = COLLECTION.exec(url.pathname) ?? []
  if (namespace === undefined) return { route: 'unknown' }
  const resource: Resource = plural === 'pods' ? 'pods' : 'serviceaccounts'
  if (name !== undefined) {
    const route = resource === 'pods' ? 'podGets' : 'serviceAccountGets'
    return { route, resource, namespace, name: decodeURIComponent(name) }
  }
  if (['1', 'true'].includes(url.searchParams.get('watch') ?? '')) {
    return { route: 'watches', resource, namespace }
  }
  // A list of one object, as distinct from the list that a watch starts from.
  const isOne = url.searchParams.get('fieldSelector')?.startsWith('metadata.name=') === true
  const isLookup = resource === 'serviceaccounts' && isOne && !url.searchParams.has('limit')
  return { route: isLookup ? 'serviceAccountLookups' : 'lists', resource, namespace }
}

/** The true answer to a call; a `Selection` when it is a watch to be served. */
export const answerCall = (backend: Backend, call: Call): Answer | Selection => {
  const { route } = call.target
  const user = authenticate(backend, call.request)
  // A credential that is shown must be valid, even where none is needed.
  if (user === undefined) return answers.unauthorized()
  switch (route) {
    case 'version':
      return answers.json(200, versionOf(backend.gitVersion))
    case 'readyz':
      return plainText('ok')
    case 'accessReviews':
      return answerAccess(backend, call, user)
    case 'subjectAccessReviews':
      return answerSubjectAccess(backend, call, user)
    case 'tokenReviews':
      return answerReview(backend, call, user)
    case 'discovery':
    case 'jwks':
      return answerKeys(backend, call, user)
    case 'unknown':
      return user === backend.sidecarUser
        ? answers.failure({
            code: 404,
            message: 'the server could not find the requested resource',
            reason: 'NotFound',
            details: {},
          })
        : answers.forbiddenPath(user, call.url.pathname)
    case 'lists':
    case 'watches':
    case 'podGets':
    case 'serviceAccountGets':
    case 'serviceAccountLookups':
      return answerObjects(backend, call, user)
  }
}

/** The caller: a sidecar credential, any valid token, or nobody; nothing if the credential is invalid. */
const authenticate = (backend: Backend, request: IncomingMessage): string | undefined => {
  const { authorization } = request.headers
  if (authorization === undefined) return 'system:anonymous'
  const token = /^Bearer (\S+)$/i.exec(authorization)?.[1] ?? ''
  if (backend.revokedTokens.has(token)) return undefined
  if (backend.sidecarTokens.has(token)) return backend.sidecarUser
  const status = reviewToken(backend, token, [])
  return 'authenticated' in status ? status.user.username : undefined
}

const answerReview = (backend: Backend, call: Call, user: string): Answer => {
  const verb = call.request.method === 'POST' ? 'create' : 'list'
  const access = { user, verb, group: 'authentication.k8s.io', resource: 'tokenreviews' }
  if (!isAllowed(backend, access)) return answers.forbidden(access)
  const review = parseReview(call)
  if ('status' in review) return review
  const { token, audiences } = review
  const spec = audiences === undefined ? { token } : { token, audiences }
  return answers.json(201, {
    kind: 'TokenReview',
    apiVersion: 'authentication.k8s.io/v1',
    metadata: {
      managedFields: [
        answers.managedField(call.request, backend.nowMs(), {
          apiVersion: 'authentication.k8s.io/v1',
          fields: Object.fromEntries(
            Object.keys(spec)
              .sort()
              .map((name) => [`f:${name}`, {}]),
          ),
        }),
      ],
    },
    spec,
    status: cachedReview(backend, token, audiences ?? []),
  })
}

type ReviewSpec = { readonly token: string; readonly audiences?: readonly string[] }

const parseReview = (call: Call): ReviewSpec | Answer => {
  const spec = readSpec(call, 'TokenReview')
  if (isAnswer(spec)) return spec
  const { token = '', audiences } = spec
  if (typeof token !== 'string' || !isAudienceList(audiences)) {
    return answers.badRequest(
      'TokenReview in version "v1" cannot be handled as a TokenReview: json: cannot unmarshal',
    )
  }
  if (token === '') {
    return answers.badRequest('token is required for TokenReview in authentication')
  }
  return audiences === undefined || audiences.length === 0 ? { token } : { token, audiences }
}

const answerAccess = (backend: Backend, call: Call, user: string): Answer => {
  const verb = call.request.method === 'POST' ? 'create' : 'list'
  // `system:basic-user` is bound to every authenticated user.
  if (verb !== 'create' || user === 'system:anonymous') {
    const group = 'authorization.k8s.io'
    return answers.forbidden({ user, verb, group, resource: 'selfsubjectaccessreviews' })
  }
  const spec = readSpec(call, 'SelfSubjectAccessReview')
  return isAnswer(spec) ? spec : reviewAccess(backend, call.request, user, spec)
}

const answerSubjectAccess = (backend: Backend, call: Call, user: string): Answer => {
  const verb = call.request.method === 'POST' ? 'create' : 'list'
  const access = { user, verb, group: 'authorization.k8s.io', resource: 'subjectaccessreviews' }
  if (!isAllowed(backend, access)) return answers.forbidden(access)
  const spec = readSpec(call, 'SubjectAccessReview')
  return isAnswer(spec) ? spec : reviewSubjectAccess(backend, spec)
}

type Spec = Readonly<Record<string, unknown>>

const isAnswer = (value: Spec | Answer): value is Answer => 'status' in value && 'headers' in value

const readSpec = (call: Call, kind: string): Spec | Answer => {
  const mediaType = call.request.headers['content-type']?.split(';')[0]?.trim()
  if (mediaType !== undefined && mediaType !== 'application/json') {
    return answers.failure({
      code: 415,
      message:
        'the body of the request was in an unknown format - accepted media types include: ' +
        'application/json, application/yaml, application/vnd.kubernetes.protobuf',
      reason: 'UnsupportedMediaType',
    })
  }
  try {
    const review = JSON.parse(call.body) as { spec?: Spec } | null
    return review?.spec ?? {}
  } catch {
    return answers.badRequest(
      `the object provided is unrecognized (must be of type ${kind}): ` +
        "couldn't get version/kind; json parse error",
    )
  }
}

const isAudienceList = (value: unknown): value is readonly string[] | undefined =>
  value === undefined ||
  (Array.isArray(value) && value.every((audience) => typeof audience === 'string'))

const cachedReview = (
  backend: Backend,
  token: string,
  audiences: readonly string[],
): ReviewStatus => {
  const key = JSON.stringify([audiences, token])
  const cached = backend.reviewCache.get(key)
  if (cached !== undefined && cached.until > backend.nowMs()) return cached.status
  const status = reviewToken(backend, token, audiences)
  if (!('authenticated' in status)) return status
  backend.onAuthenticated?.(token)
  if (backend.successCacheMs > 0) {
    if (backend.reviewCache.size >= CACHED_REVIEWS_MAX) backend.reviewCache.clear()
    backend.reviewCache.set(key, { status, until: backend.nowMs() + backend.successCacheMs })
  }
  return status
}

const answerKeys = (backend: Backend, call: Call, user: string): Answer => {
  // `system:service-account-issuer-discovery` is bound to all ServiceAccounts, not to the world.
  const isKnown = user !== 'system:anonymous' || backend.rbac.publicKeys === true
  if (!isKnown) return answers.forbiddenPath(user, call.url.pathname)
  const isPublic = { 'cache-control': 'public, max-age=3600' }
  const { accepted } = backend.keys
  if (call.target.route === 'jwks') {
    const type = 'application/jwk-set+json'
    const { accept = '*/*' } = call.request.headers
    if (!accept.includes(type) && !accept.includes('*/*')) return notAcceptable(type)
    return answers.json(
      200,
      { keys: accepted.map(publicJwk) },
      { ...isPublic, 'content-type': type },
    )
  }
  const document = {
    issuer: backend.issuer,
    jwks_uri: backend.jwksUri,
    response_types_supported: ['id_token'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: [...new Set(accepted.map((key) => key.alg))],
  }
  return answers.json(200, document, isPublic)
}

/** Strict about its keys, like the real one. */
const notAcceptable = (type: string): Answer =>
  answers.failure({
    code: 406,
    message: `406: Not Acceptable\n\nAvailable representations: ${type}`,
    reason: 'NotAcceptable',
  })

const VERBS: Partial<Record<Route, string>> = {
  serviceAccountLookups: 'list',
  lists: 'list',
  watches: 'watch',
}

const answerObjects = (backend: Backend, call: Call, user: string): Answer | Selection => {
  const { route, resource = 'pods', namespace = '', name } = call.target
  const verb = call.request.method === 'GET' ? (VERBS[route] ?? 'get') : 'create'
  const access = { user, verb, group: '', resource, namespace }
  if (!isAllowed(backend, access)) {
    return answers.forbidden(name === undefined ? access : { ...access, name })
  }
  if (name !== undefined) {
    const object = backend.store.get(resource, namespace, name)
    if (object === undefined) return answers.notFound(resource, name)
    return answers.json(200, withKind(resource, object))
  }
  const query = call.url.searchParams
  const selection = selectionOf(resource, namespace, query)
  if ('status' in selection) return selection
  if (route === 'lists' || route === 'serviceAccountLookups')
    return listAnswer(backend.store, selection, query)
  return invalidVersion(query) ?? selection
}

const invalidVersion = (query: URLSearchParams): Answer | undefined => {
  const asked = query.get('resourceVersion') ?? ''
  if (/^\d*$/.test(asked)) return undefined
  const parse = `strconv.ParseUint: parsing "${asked}": invalid syntax`
  return answers.failure({
    code: 500,
    message: `resourceVersion: Invalid value: "${asked}": ${parse}`,
  })
}

const plainText = (body: string): Answer => ({
  status: 200,
  headers: { 'content-type': 'text/plain; charset=utf-8' },
  body,
})

const versionOf = (gitVersion: string) => {
  const [major, minor] = gitVersion.slice(1).split('.')
  return { major, minor, gitVersion, gitTreeState: 'clean', platform: 'linux/amd64' }
}
