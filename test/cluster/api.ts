/** Requests to the real API server as the one `KUBECONFIG` names, or as anybody with a token. */

import { Agent, request } from 'node:https'
import type { Kubeconfig } from './kubeconfig.ts'

export type Json = Readonly<Record<string, unknown>>

export type Answer = { readonly status: number; readonly body: Json }

export type Call = {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly path: string
  readonly body?: object
  /** Asks as the holder of this token instead. */
  readonly token?: string
}

export type Api = ReturnType<typeof createApi>

/** As many connections as there are simultaneous deletions and reviews. */
const SOCKETS_MAX = 50
const DEADLINE_MS = 20_000

export const createApi = (config: Kubeconfig) => {
  const { server, ca, clientCert: cert, clientKey: key } = config
  const common = { ca, keepAlive: true, maxSockets: SOCKETS_MAX }
  const admin = new Agent({
    ...common,
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  })
  // A client certificate would override a token, so other callers use separate connections.
  const others = new Agent(common)

  const call = async ({ method, path, body, token }: Call): Promise<Answer> => {
    const bearer = token ?? config.token
    const text = body === undefined ? '' : JSON.stringify(body)
    return new Promise((resolve, reject) => {
      const outgoing = request(
        new URL(path, server),
        {
          method,
          agent: token === undefined ? admin : others,
          signal: AbortSignal.timeout(DEADLINE_MS),
          headers: {
            accept: 'application/json',
            'content-length': Buffer.byteLength(text),
            'content-type': `application/${method === 'PATCH' ? 'merge-patch+' : ''}json`,
            ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
          },
        },
        (answer) => {
          const chunks: Buffer[] = []
          answer.on('data', (chunk: Buffer) => chunks.push(chunk))
          answer.on('error', reject)
          answer.on('end', () => {
            resolve({ status: answer.statusCode ?? 0, body: read(Buffer.concat(chunks)) })
          })
        },
      )
      outgoing.on('error', reject)
      outgoing.end(text)
    })
  }

  /** The body of a 2xx answer; anything else is an error of the test. */
  const must = async (asked: Call): Promise<Json> => {
    const { status, body } = await call(asked)
    if (status >= 200 && status < 300) return body
    throw new Error(`${asked.method} ${asked.path}: ${status} ${JSON.stringify(body)}`)
  }

  const close = () => {
    admin.destroy()
    others.destroy()
  }
  return { call, must, close }
}

const read = (bytes: Buffer): Json => {
  const text = bytes.toString()
  return text.startsWith('{') ? (JSON.parse(text) as Json) : { text }
}

/** Of the API server, as `v1.35.4`. */
export const readVersion = async (api: Pick<Api, 'must'>): Promise<string> => {
  const { gitVersion } = await api.must({ method: 'GET', path: '/version' })
  return String(gitVersion)
}

/** As a number, such as 35. */
export const minorOf = (version: string): number => Number(version.split('.')[1])
