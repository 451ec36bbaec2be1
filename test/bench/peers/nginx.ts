/** The web server nginx as a WebSocket proxy: with its default buffers, with larger ones, and asking who calls. */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { startChild } from '../child.ts'
import { findGo } from '../go-programs.ts'
import { openFilesMax, processTree } from '../processes.ts'
import { findFreePort } from '../../kit/free-port.ts'
import { accepting } from '../ports.ts'
import { startAuthEndpoint } from './go.ts'
import type { Absent, Peer, Runtime } from './peer.ts'

const AUTH_REQUEST_MODULE = '--with-http_auth_request_module'
/**
 * Both sides counted. When a sixteenth of them is left, nginx begins to cut connections that wait for their
 * request, so there have to be more than 10,000 workers need; each costs memory from the start.
 */
const WORKER_CONNECTIONS = 22_000

type Settings = {
  readonly port: number
  readonly hasLargeBuffers: boolean
  /** Where `auth_request` asks, as host:port. */
  readonly authEndpoint: string | undefined
}

export const nginxPeers = (): readonly (Peer | Absent)[] => {
  const built = describe()
  if (built === undefined) return [{ name: 'nginx', absent: 'it is not installed' }]
  const version = /nginx\/([\d.]+)/.exec(built)?.[1] ?? '?'
  return [
    {
      name: 'nginx',
      about: `nginx ${version}, one worker, default buffers; asks nobody`,
      asksNobody: true,
      start: (runtime) => start(runtime, { hasLargeBuffers: false, asks: false }),
    },
    {
      name: 'nginx-64k',
      about: `nginx ${version}, one worker, proxy_buffer_size 64k`,
      sections: ['echo', 'streams', 'idle'],
      start: (runtime) => start(runtime, { hasLargeBuffers: true, asks: false }),
    },
    nginxAuth(version, built),
  ]
}

const nginxAuth = (version: string, built: string): Peer | Absent => {
  const name = 'nginx-auth'
  if (!built.includes(AUTH_REQUEST_MODULE)) {
    return { name, absent: 'this nginx is built without auth_request' }
  }
  if (findGo() === undefined) return { name, absent: 'its auth endpoint is a Go program' }
  return {
    name,
    about: `nginx ${version}, auth_request to a Go endpoint with a TokenReview cache, CPU of both`,
    sections: ['handshakes'],
    start: (runtime) => start(runtime, { hasLargeBuffers: false, asks: true }),
  }
}

const describe = (): string | undefined => {
  try {
    return execFileSync('sh', ['-c', 'nginx -V 2>&1'], { encoding: 'utf8' })
  } catch {
    return undefined
  }
}

const start = async (
  runtime: Runtime,
  how: { readonly hasLargeBuffers: boolean; readonly asks: boolean },
) => {
  const { directory } = runtime
  const endpoint = how.asks ? await startAuthEndpoint(runtime) : undefined
  const port = await findFreePort()
  const file = join(directory, 'nginx.conf')
  const { hasLargeBuffers } = how
  const authEndpoint = endpoint?.address
  writeFileSync(file, configure(runtime, { port, hasLargeBuffers, authEndpoint }))
  const child = startChild(['nginx', '-p', directory, '-e', 'stderr', '-c', file])
  const address = `127.0.0.1:${port}`
  await accepting(address)
  return {
    address,
    pids: () => [...processTree(child.pid), ...(endpoint?.pids() ?? [])],
    stop: async () => {
      await child.stop()
      await endpoint?.stop()
    },
  }
}

const configure = (
  { upstream, directory, tls }: Runtime,
  { port, hasLargeBuffers, authEndpoint }: Settings,
): string => {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${join(directory, name)};`)
    .join(' ')
  return `
daemon off;
pid ${join(directory, 'nginx.pid')};
worker_processes 1;
worker_rlimit_nofile ${openFilesMax()};
events { worker_connections ${WORKER_CONNECTIONS}; }
http {
  access_log off;
  ${temporary}
  ${authEndpoint === undefined ? '' : `upstream auth { server ${authEndpoint}; keepalive 32; }`}
  server {
    listen 127.0.0.1:${port} backlog=4096${tls === undefined ? '' : ' ssl'};
    ${tls === undefined ? '' : `ssl_certificate ${tls.certFile}; ssl_certificate_key ${tls.keyFile};`}
    ${hasLargeBuffers ? 'proxy_buffer_size 64k; proxy_buffers 8 64k;' : ''}
    location / {
      ${authEndpoint === undefined ? '' : 'auth_request /auth; auth_request_set $user $upstream_http_x_remote_user; proxy_set_header X-Remote-User $user;'}
      proxy_pass http://${upstream};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header Authorization "";
      proxy_read_timeout 1h;
      proxy_send_timeout 1h;
    }
    ${
      authEndpoint === undefined
        ? ''
        : `location = /auth {
      internal;
      proxy_pass http://auth;
      proxy_http_version 1.1;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header Connection "";
    }`
    }
  }
}
`
}
