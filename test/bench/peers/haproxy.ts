/** HAProxy as a WebSocket proxy, with the buffers it has by default and with larger ones. */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { startChild } from '../child.ts'
import { findFreePort } from '../../kit/free-port.ts'
import { accepting } from '../ports.ts'
import { openFilesMax, processTree } from '../processes.ts'
import type { Absent, Peer, Runtime } from './peer.ts'

/** Open files that are not connections. */
const OTHER_FILES = 100

export const haproxyPeers = (): readonly (Peer | Absent)[] => {
  const version = findVersion()
  if (version === undefined) return [{ name: 'haproxy', absent: 'it is not installed' }]
  return [
    {
      name: 'haproxy',
      about: `HAProxy ${version}, one thread, default buffers of 16 KiB; asks nobody`,
      asksNobody: true,
      start: (runtime) => start(runtime, ''),
    },
    {
      name: 'haproxy-64k',
      about: `HAProxy ${version}, one thread, tune.bufsize 65536`,
      sections: ['echo', 'streams', 'idle'],
      start: (runtime) => start(runtime, 'tune.bufsize 65536'),
    },
  ]
}

const findVersion = (): string | undefined => {
  try {
    const text = execFileSync('haproxy', ['-v'], { encoding: 'utf8' })
    return /version ([\d.]+)/.exec(text)?.[1] ?? '?'
  } catch {
    return undefined
  }
}

const start = async (runtime: Runtime, tuning: string) => {
  const port = await findFreePort()
  const file = join(runtime.directory, 'haproxy.cfg')
  writeFileSync(file, configure(runtime, port, tuning))
  const child = startChild(['haproxy', '-f', file, '-db', '-q'])
  const address = `127.0.0.1:${port}`
  await accepting(address)
  return { address, pids: () => processTree(child.pid), stop: child.stop }
}

const configure = ({ upstream, tls }: Runtime, port: number, tuning: string): string => `
global
  nbthread 1
  maxconn ${Math.floor((Math.min(openFilesMax(), 65_536) - OTHER_FILES) / 2)}
  ${tuning}
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  option forwardfor
frontend workers
  bind 127.0.0.1:${port} backlog 4096 ${tls === undefined ? '' : `ssl crt ${tls.bundleFile} alpn http/1.1`}
  http-request del-header Authorization
  default_backend gateway
backend gateway
  server gateway ${upstream}
`
