/** The proxy oauth2-proxy, with the cluster as its OpenID issuer: it verifies tokens itself and asks nobody about them. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findFreePort } from '../../kit/free-port.ts'
import { startChild } from '../child.ts'
import { accepting } from '../ports.ts'
import { processTree } from '../processes.ts'
import { buildProgram, type GoProgram } from './go-modules.ts'
import type { Absent, Peer, RunningPeer, Runtime } from './peer.ts'

const PROGRAM: GoProgram = {
  name: 'oauth2-proxy',
  module: 'github.com/oauth2-proxy/oauth2-proxy/v7@v7.15.6',
  sum: 'h1:4xZOFvyGysSUxdrEVyLjo+NduqGHbGV9bLE8XD49IJM=',
  package: '.',
}
/** Its list of allowed subjects is a list of addresses, and takes a ServiceAccount's name for one. */
const ALLOWED = 'system:serviceaccount:openclaw:openclaw-worker\n'
/** Any 32 bytes: no cookie is ever set. */
const COOKIE_SECRET = '0123456789abcdef0123456789abcdef'

export const oauth2Proxy = async (): Promise<Peer | Absent> => {
  const { name, module } = PROGRAM
  const built = await buildProgram(PROGRAM)
  if ('why' in built) return { name, absent: built.why }
  return {
    name,
    about:
      `${module}: \`--skip-jwt-bearer-tokens\` with the cluster's issuer and signing keys, and a list of ` +
      'ServiceAccounts; it verifies the signature at each connect, without a TokenReview and without a cache',
    start: (runtime) => start(built.path, runtime),
  }
}

const start = async (
  program: string,
  { cluster, upstream, directory, tls }: Runtime,
): Promise<RunningPeer> => {
  const address = `127.0.0.1:${await findFreePort()}`
  const allowedFile = join(directory, 'allowed')
  writeFileSync(allowedFile, ALLOWED)
  const child = startChild(
    [
      program,
      ...(tls === undefined
        ? [`--http-address=${address}`]
        : [
            '--http-address=',
            `--https-address=${address}`,
            `--tls-cert-file=${tls.certFile}`,
            `--tls-key-file=${tls.keyFile}`,
          ]),
      `--upstream=http://${upstream}/`,
      '--provider=oidc',
      `--oidc-issuer-url=${cluster.issuer}`,
      // The issuer's host has no address here; the keys come from the API server.
      '--skip-oidc-discovery',
      `--oidc-jwks-url=${cluster.url}/openid/v1/jwks`,
      `--provider-ca-file=${cluster.caFile}`,
      '--client-id=openclaw-gateway',
      '--skip-jwt-bearer-tokens',
      '--bearer-token-login-fallback=false',
      `--authenticated-emails-file=${allowedFile}`,
      // Required, but for people who log in.
      '--client-secret=none',
      `--cookie-secret=${COOKIE_SECRET}`,
      `--login-url=http://${upstream}/`,
      `--redeem-url=http://${upstream}/`,
      `--logging-filename=${join(directory, 'requests.log')}`,
    ],
    { logFile: join(directory, 'log'), stopSignal: 'SIGKILL' },
  )
  await accepting(address)
  return { address, pids: () => processTree(child.pid), stop: child.stop }
}
