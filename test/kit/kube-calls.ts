/** Calls to the stand-in API server, for the tests of the stand-in itself. */

import { once } from 'node:events'
import { request } from 'node:https'
import type { IncomingMessage } from 'node:http'
import type { Test } from 'tap'
import { FakeClock } from './fake-clock.ts'
import { startKubeApi } from './kube-api.ts'
import type { KubeApi, KubeApiOptions } from './kube-api.ts'

export const REVIEWS = '/apis/authentication.k8s.io/v1/tokenreviews'
export const ACCESS = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews'
export const SUBJECT_ACCESS = '/apis/authorization.k8s.io/v1/subjectaccessreviews'
export const PODS = '/api/v1/namespaces/lab/pods'
export const SAMPLES = new URL('./samples/tokenreview/', import.meta.url)
export const ISSUER = 'https://127.0.0.1:6443'

export type Call = { readonly method?: string; readonly token?: string; readonly body?: unknown }
export type Reply = { readonly status: number; readonly type: string; readonly text: string }

export const open = async (
  api: KubeApi,
  path: string,
  call: Call = {},
): Promise<IncomingMessage> => {
  const sent = request(api.url + path, {
    agent: false,
    method: call.method ?? (call.body === undefined ? 'GET' : 'POST'),
    ca: api.ca(),
    headers: {
      'user-agent': 'curl/8.0',
      ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(call.token === undefined ? {} : { authorization: `Bearer ${call.token}` }),
    },
  })
  sent.end(call.body === undefined ? undefined : JSON.stringify(call.body))
  const [response] = (await once(sent, 'response')) as [IncomingMessage]
  return response
}

export const call = async (api: KubeApi, path: string, how: Call = {}): Promise<Reply> => {
  const response = await open(api, path, how)
  const text = (await response.toArray()).join('')
  return { status: response.statusCode ?? 0, type: response.headers['content-type'] ?? '', text }
}

export const review = async (
  api: KubeApi,
  token: string,
  audiences: readonly string[] = ['lab-aud'],
) => {
  const body = {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    spec: audiences.length === 0 ? { token } : { token, audiences },
  }
  const { status, text } = await call(api, REVIEWS, { token: api.sidecarToken(), body })
  return { code: status, ...(JSON.parse(text) as { spec: unknown; status: Status }) }
}

type Status = {
  readonly authenticated?: boolean
  readonly error?: string
  readonly audiences?: readonly string[]
  readonly user: { readonly username?: string; readonly extra?: Record<string, string[]> }
}

export const start = async (test: Test, options: KubeApiOptions = {}) => {
  const clock = new FakeClock()
  const api = await startKubeApi({ algs: ['ES256'], clock, issuer: ISSUER, ...options })
  test.teardown(async () => api.stop())
  const pod = api.createPod({
    namespace: 'lab',
    name: 'agent-1',
    serviceAccount: 'agent',
    ips: ['127.0.0.2'],
    nodeName: 'lab-node-1',
  })
  return { api, clock, pod }
}
