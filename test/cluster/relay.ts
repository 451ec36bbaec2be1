/** A relay between the sidecar and the real API server that disturbs watches as a bad network would. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { Agent, createServer, request as httpsRequest } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { createAuthority } from '../kit/authority.ts'
import type { Kubeconfig } from './kubeconfig.ts'
import { waitForProcess } from '../kit/wait.ts'

type Watch = { readonly path: string; readonly response: ServerResponse; isMuted: boolean }

/** What was seen of one resource: its lists, and its watches that were refused as too old. */
type Seen = { lists: number; gone: number }

export type Relay = Awaited<ReturnType<typeof startRelay>>

const SEEN_WITHIN_MS = 10_000

/** It ends TLS itself, so that it can tell a watch from a request; the sidecar has to trust `ca`. */
export const startRelay = async ({ server: target, ca: targetCa }: Kubeconfig) => {
  const authority = await createAuthority('relay-ca')
  const agent = new Agent({ ca: targetCa, keepAlive: true })
  const sockets = new Set<Socket>()
  const watches = new Set<Watch>()
  const held = new Map<() => void, string>()
  const seen = new Map<string, Seen>()
  let isHolding = false
  let isForgetful = false

  const seenOf = (path: string): Seen => {
    const resource = path.slice(path.lastIndexOf('/'))
    const found = seen.get(resource) ?? { lists: 0, gone: 0 }
    seen.set(resource, found)
    return found
  }

  const pass = (incoming: IncomingMessage, response: ServerResponse): void => {
    const url = new URL(incoming.url ?? '/', target)
    const isWatch = url.searchParams.has('watch')
    // Older than any version from which the API server can still continue.
    if (isWatch && isForgetful) url.searchParams.set('resourceVersion', '1')
    const watch = { path: url.pathname, response, isMuted: false }
    if (isWatch) watches.add(watch)
    const outgoing = httpsRequest(
      url,
      { method: incoming.method, agent, headers: { ...incoming.headers, host: target.host } },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers)
        response.flushHeaders()
        if (answer.statusCode === 410) seenOf(url.pathname).gone += 1
        answer.on('data', (chunk: Buffer) => {
          if (isWatch && chunk.includes('"code":410')) seenOf(url.pathname).gone += 1
          if (!watch.isMuted) response.write(chunk)
        })
        answer.on('error', () => response.destroy())
        answer.on('end', () => {
          if (!watch.isMuted) response.end()
        })
      },
    )
    outgoing.on('error', () => response.destroy())
    response.on('close', () => {
      watches.delete(watch)
      outgoing.destroy()
    })
    incoming.pipe(outgoing)
  }

  const server = createServer(
    await authority.issue({ commonName: 'relay', hosts: ['127.0.0.1'], usage: 'server' }),
    (incoming, response) => {
      const { pathname, searchParams } = new URL(incoming.url ?? '/', target)
      const isWatch = searchParams.has('watch')
      if (!isWatch) seenOf(pathname).lists += 1
      if (!isWatch || !isHolding) return pass(incoming, response)
      const go = () => pass(incoming, response)
      held.set(go, pathname)
      response.on('close', () => held.delete(go))
    },
  )
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo

  const isOpen = (resource: string) => [...watches].some(({ path }) => path.endsWith(resource))
  return {
    url: `https://127.0.0.1:${port}`,
    ca: authority.cert,
    /** What was seen of a resource (`/pods`) up to now. */
    seen: (resource: string): Readonly<Seen> => ({ ...seenOf(resource) }),
    /** Drops the connections of the open watches on a resource, as a dying load balancer would. */
    cut(resource: string): void {
      for (const { path, response } of watches) if (path.endsWith(resource)) response.destroy()
    },
    /** The open watches stay connected and never hear another byte; later ones are served. */
    blackhole(): void {
      for (const watch of watches) watch.isMuted = true
    },
    /** New watches get no answer until `release`; everything else is served. */
    hold(): void {
      isHolding = true
    },
    /** Resolves when a watch on the resource has been requested and held. */
    heldOne: (resource: string) =>
      waitForProcess(`a held watch on ${resource}`, SEEN_WITHIN_MS, () =>
        [...held.values()].some((path) => path.endsWith(resource)),
      ),
    release(): void {
      isHolding = false
      for (const go of held.keys()) go()
      held.clear()
    },
    /** From now on watches ask for a history that is long forgotten. */
    forget(): void {
      isForgetful = true
    },
    remember(): void {
      isForgetful = false
    },
    watching: (resource: string) =>
      waitForProcess(`a watch on ${resource}`, SEEN_WITHIN_MS, () => isOpen(resource)),
    stop: async () => {
      for (const socket of sockets) socket.destroy()
      agent.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
