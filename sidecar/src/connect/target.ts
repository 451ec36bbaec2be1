/** Calls the gateway's sidecar with the pod's current token, over TLS with the current certificates. */

import { request as requestPlain, type ClientRequest } from 'node:http'
import { request as requestTls } from 'node:https'
import { isIP } from 'node:net'
import { createSecureContext, type SecureContext } from 'node:tls'
import { readProblem, type ReadFile } from '../config/files.ts'
import { endpointOf } from '../lib/address.ts'
import type { Clock } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import { ignoreError } from '../lib/peer-errors.ts'
import { Unavailable } from './codes.ts'

export type TargetOptions = {
  /** `ws:` or `wss:`, without a path. */
  readonly url: URL
  readonly tokenFile: string
  readonly credentialHeader: string
  /** What the certificate must be for, where it is not the host of the URL. */
  readonly serverName: string | undefined
  /** Without it the authorities that Node brings along. */
  readonly caFile: string | undefined
  readonly certFile: string | undefined
  readonly keyFile: string | undefined
  readonly readFile: ReadFile
  readonly clock: Clock
}

export type Call = {
  readonly method: 'GET' | 'POST'
  readonly path: string
  /** Every header but `Host` and the credential. */
  readonly headers: Readonly<Record<string, string | undefined>>
  /** From the call to the answer's head, in milliseconds. */
  readonly answerMsMax: number
}

/** For the connection alone, TLS included, in milliseconds. */
const CONNECT_MS_MAX = 10_000
/** Bounds what is read for each call, in bytes; the sidecar accepts no longer token. */
const TOKEN_FILE_BYTES_MAX = 16 * 1024
const TLS_FILE_BYTES_MAX = 256 * 1024
/** A peer that has vanished is noticed on a silent stream, too. */
const KEEP_ALIVE_MS = 30_000
const PEM = '-----BEGIN '
const TOKEN = /^[A-Za-z0-9._~+/-]{1,8192}={0,2}$/

export type SidecarCall = {
  readonly request: ClientRequest
  /** Why there was no answer. */
  readonly explain: (error: Error) => Unavailable
}

/** How far the connection of a call is. */
type Phase = 'connecting' | 'securing' | 'open'

/**
 * Token and certificates are read for each call: the kubelet replaces them under way, and calls are
 * rare. Throws `Unavailable` when they cannot be used.
 */
export function callSidecar(target: TargetOptions, call: Call): SidecarCall {
  const { url, credentialHeader } = target
  const token = readToken(target)
  const tls = url.protocol === 'wss:' ? secure(target) : undefined
  const options = {
    ...endpointOf(url),
    method: call.method,
    path: call.path,
    // A connection of its own for each call: what it proves must be true now.
    agent: false,
    setHost: false,
    allowHalfOpen: true,
    headers: { Host: url.host, ...present(call.headers), [credentialHeader]: token },
  }
  const request = tls === undefined ? requestPlain(options) : requestTls({ ...options, ...tls })
  request.on('error', ignoreError)
  let phase: Phase = 'connecting'
  request.once('socket', (socket) => {
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    socket.once('connect', () => {
      phase = tls === undefined ? 'open' : 'securing'
    })
    socket.once('secureConnect', () => {
      phase = 'open'
    })
  })
  bound(request, target.clock, { answerMsMax: call.answerMsMax, isOpen: () => phase === 'open' })
  return { request, explain: (error) => explain(error, phase) }
}

function explain(error: Error, phase: Phase): Unavailable {
  if (error instanceof Unavailable) return error
  // A server that wants another certificate of ours says so after the handshake (RFC 8446 §4.4.2.4).
  const isAlert = 'code' in error && String(error.code).startsWith('ERR_SSL_')
  const code = isAlert || phase === 'securing' ? 'sidecar_tls_failed' : 'sidecar_unreachable'
  return new Unavailable(code, messageOf(error))
}

function readToken({ tokenFile, readFile }: TargetOptions): string {
  const refuse = (reason: string) => new Unavailable('token_unavailable', reason)
  let text: string
  try {
    text = readFile(tokenFile, TOKEN_FILE_BYTES_MAX).trim()
  } catch (error) {
    throw refuse(`${tokenFile}: ${readProblem(error)}`)
  }
  if (text === '') throw refuse(`${tokenFile}: The file is empty.`)
  if (!TOKEN.test(text)) throw refuse(`${tokenFile}: This is not a token.`)
  return text
}

type TlsSettings = {
  readonly secureContext: SecureContext
  readonly servername: string
  readonly rejectUnauthorized: true
}

function secure({ url, serverName, readFile, ...files }: TargetOptions): TlsSettings {
  const read = (file: string | undefined) =>
    file === undefined ? undefined : readNamed(file, readFile)
  const [ca, cert, key] = [read(files.caFile), read(files.certFile), read(files.keyFile)]
  try {
    const secureContext = createSecureContext({
      minVersion: 'TLSv1.2',
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
    })
    // SNI does not carry addresses (RFC 6066 §3); the certificate is checked for the host anyway.
    const { host } = endpointOf(url)
    const servername = serverName ?? (isIP(host) === 0 ? host : '')
    // Whatever NODE_TLS_REJECT_UNAUTHORIZED says.
    return { secureContext, servername, rejectUnauthorized: true }
  } catch (error) {
    throw new Unavailable('certificates_unavailable', messageOf(error))
  }
}

function readNamed(file: string, readFile: ReadFile): string {
  let text: string
  try {
    text = readFile(file, TLS_FILE_BYTES_MAX)
  } catch (error) {
    throw new Unavailable('certificates_unavailable', `${file}: ${readProblem(error)}`)
  }
  // Node takes text without PEM for no certificate, or no key, and goes on without.
  if (text.includes(PEM)) return text
  throw new Unavailable('certificates_unavailable', `${file}: This is not a PEM file.`)
}

type Bounds = { readonly answerMsMax: number; readonly isOpen: () => boolean }

/** Ends the request unless it is connected, and then answered, in time. */
function bound(request: ClientRequest, clock: Clock, { answerMsMax, isOpen }: Bounds): void {
  const end = (reason: string) =>
    void request.destroy(new Unavailable('sidecar_unreachable', reason))
  const cancels = [
    clock.after(CONNECT_MS_MAX, () => {
      if (!isOpen()) end(`no connection within ${CONNECT_MS_MAX} ms`)
    }),
    clock.after(answerMsMax, () => end(`no answer within ${answerMsMax} ms`)),
  ]
  const cancelAll = () => {
    for (const cancel of cancels) cancel()
  }
  for (const event of ['response', 'upgrade', 'close']) request.once(event, cancelAll)
}

const present = (headers: Call['headers']): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers).filter((entry): entry is [string, string] => entry[1] !== undefined),
  )
