/** The options of `connect`: their table, and what they may be. */

import { isIP } from 'node:net'
import { ConfigError, type Problem } from '../config/config-error.ts'
import {
  DEFAULT_CREDENTIAL_HEADER,
  HEADER_PATTERN,
  RESERVED_HEADER,
} from '../config/credential-header.ts'
import { isLoopback, isPrivate, normalizeAddress, unbracketed } from '../lib/address.ts'
import type { Listen } from './connect-port.ts'

type Option = {
  readonly type: 'string' | 'boolean'
  /** What stands for the value in the help. */
  readonly value?: string
  readonly default?: string
  readonly description: string
}

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const

/** In the order of the help. */
export const CONNECT_OPTIONS = {
  gateway: {
    type: 'string',
    value: 'ws[s]://HOST:PORT',
    description:
      "The gateway's sidecar. `ws://` only to loopback, a private address or the name of a Service. Required.",
  },
  listen: {
    type: 'string',
    value: 'HOST:PORT|unix:PATH',
    default: '127.0.0.1:18789',
    description:
      'Where workers connect: a loopback address or a Unix socket. On the host network only a Unix socket.',
  },
  'token-file': {
    type: 'string',
    value: 'FILE',
    default: '/var/run/secrets/openclaw/token',
    description: "The pod's projected token. It is read for each connection.",
  },
  'credential-header': {
    type: 'string',
    value: 'NAME',
    default: DEFAULT_CREDENTIAL_HEADER,
    description: "The header that carries the token: the sidecar's `k8sTrust.credentialHeader`.",
  },
  role: {
    type: 'string',
    value: 'ROLE',
    description:
      'What a `stream` worker asks to be, if the allow-list leaves it a choice. It is sent as `X-OpenClaw-Role`.',
  },
  'session-hosting': {
    type: 'boolean',
    description: 'Whether the routes of session hosting are served, too.',
  },
  'ca-file': {
    type: 'string',
    value: 'FILE',
    description:
      "CA certificates that the sidecar's certificate must come from. Default: those that Node trusts.",
  },
  'server-name': {
    type: 'string',
    value: 'NAME',
    description: "The name in the sidecar's certificate. Default: the host of `--gateway`.",
  },
  'cert-file': {
    type: 'string',
    value: 'FILE',
    description: 'Client certificate for mutual TLS. It is read for each connection.',
  },
  'key-file': { type: 'string', value: 'FILE', description: 'Private key of `--cert-file`.' },
  'log-level': {
    type: 'string',
    value: 'LEVEL',
    default: 'info',
    description: `The least severe lines of the log: ${LOG_LEVELS.join(', ')}.`,
  },
  check: {
    type: 'boolean',
    description: 'Only check that `connect` answers at `--listen`: for an exec probe.',
  },
} as const satisfies Record<string, Option>

type OptionName = keyof typeof CONNECT_OPTIONS
/** The values as given. */
export type Given = Readonly<
  Partial<Record<OptionName, string | boolean | readonly string[] | undefined>>
>

export type ConnectConfig = {
  readonly gateway: URL
  readonly listen: Listen
  readonly tokenFile: string
  readonly credentialHeader: string
  readonly role: string | undefined
  readonly sessionHosting: boolean
  readonly caFile: string | undefined
  readonly serverName: string | undefined
  readonly certFile: string | undefined
  readonly keyFile: string | undefined
  readonly logLevel: (typeof LOG_LEVELS)[number]
}

const LISTEN = /^(localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]{2,45}\]):(\d{1,5})$/
/** The kernel's limit for the path of a Unix socket is 107 bytes. */
const SOCKET_PATH = /^\/[^\p{Cc}]{1,106}$/u
const ROLE = /^[A-Za-z0-9._-]{1,63}$/
const SERVER_NAME = /^[0-9A-Za-z._-]{1,253}$/
/** A name without dots, or one of a Service: it does not leave the cluster's DNS. */
const SERVICE_NAME = /^[a-z0-9-]+$|\.svc$|\.svc\.cluster\.local$/i
const LISTEN_HINT = 'Write a loopback address and a port, such as 127.0.0.1:18789, or unix:/PATH.'

/** Throws a `ConfigError` with every problem. */
export function readConnectOptions(given: Given): ConnectConfig {
  const problems: Problem[] = []
  const refuse = (name: OptionName, reason: string, hint: string) =>
    void problems.push({ path: `--${name}`, reason, hint })
  const text = (name: OptionName): string | undefined => {
    const option: Option = CONNECT_OPTIONS[name]
    const value = given[name] ?? option.default
    return typeof value === 'string' ? value : undefined
  }
  const level = LOG_LEVELS.find((each) => each === text('log-level'))
  if (level === undefined) {
    refuse('log-level', 'This is not a level.', `Use one of: ${LOG_LEVELS.join(', ')}.`)
  }
  const config = {
    gateway: readGateway(text('gateway'), refuse),
    listen: readListen(text('listen') ?? '', refuse),
    tokenFile: text('token-file') ?? '',
    credentialHeader: text('credential-header') ?? '',
    role: text('role'),
    sessionHosting: given['session-hosting'] === true,
    caFile: text('ca-file'),
    serverName: text('server-name'),
    certFile: text('cert-file'),
    keyFile: text('key-file'),
    logLevel: level ?? 'info',
  }
  checkHeaders(config, refuse)
  checkTls(config, refuse)
  if (problems.length > 0) throw new ConfigError(problems)
  return config
}

type Refuse = (name: OptionName, reason: string, hint: string) => void

const NO_URL = new URL('wss://invalid')

function readGateway(text: string | undefined, refuse: Refuse): URL {
  const hint = 'Write the Service and its port, such as wss://openclaw-gateway:18789.'
  const url = URL.parse(text ?? '')
  if (text === undefined) refuse('gateway', 'The option is missing.', hint)
  else if (url === null || !/^wss?:$/.test(url.protocol) || url.port === '0') {
    refuse('gateway', 'This is not a ws:// or wss:// URL.', hint)
  } else if (url.href !== `${url.protocol}//${url.host}/` || /[#?]/.test(text)) {
    refuse('gateway', 'A path, a query, a fragment or credentials are not allowed here.', hint)
  } else if (url.protocol === 'ws:' && !isNear(url.hostname)) {
    refuse(
      'gateway',
      'ws:// is not encrypted, and this host may be outside the cluster: the token could be read.',
      "Use wss://, or the name of the gateway's Service, such as openclaw-gateway.",
    )
  }
  return url ?? NO_URL
}

/** Whether a host lies within the cluster by its name or address. */
function isNear(hostname: string): boolean {
  const address = normalizeAddress(unbracketed(hostname))
  if (address === undefined) return SERVICE_NAME.test(hostname)
  return isLoopback(address) || isPrivate(address)
}

function readListen(text: string, refuse: Refuse): Listen {
  const path = text.startsWith('unix:') ? text.slice('unix:'.length) : undefined
  if (path !== undefined) {
    if (!SOCKET_PATH.test(path)) {
      refuse('listen', 'The socket needs an absolute path of at most 107 characters.', LISTEN_HINT)
    }
    return { kind: 'unix', path }
  }
  const [, name = '', port = ''] = LISTEN.exec(text) ?? []
  const host = name === 'localhost' ? '127.0.0.1' : unbracketed(name)
  const address = normalizeAddress(host)
  if (address === undefined || Number(port) > 65_535) {
    refuse('listen', 'This is not an address to listen on.', LISTEN_HINT)
  } else if (!isLoopback(address)) {
    refuse(
      'listen',
      'Other pods could reach this port, and use the identity of this pod.',
      LISTEN_HINT,
    )
  }
  return { kind: 'tcp', host, port: Number(port) }
}

function checkHeaders({ credentialHeader, role }: ConnectConfig, refuse: Refuse): void {
  const hint = `Use the k8sTrust.credentialHeader of the sidecar, such as ${DEFAULT_CREDENTIAL_HEADER}.`
  if (!HEADER_PATTERN.test(credentialHeader) || credentialHeader.length > 64) {
    refuse('credential-header', 'This is not a header name.', hint)
  } else if (RESERVED_HEADER.test(credentialHeader)) {
    refuse('credential-header', 'This header already has another meaning in the handshake.', hint)
  }
  if (role !== undefined && !ROLE.test(role)) {
    refuse('role', 'This is not the name of a role.', 'Use a name of allowedRoles, such as node.')
  }
}

function checkTls(config: ConnectConfig, refuse: Refuse): void {
  const { gateway, caFile, certFile, keyFile, serverName } = config
  if ((certFile === undefined) !== (keyFile === undefined)) {
    const missing = certFile === undefined ? 'cert-file' : 'key-file'
    refuse(missing, 'The option is missing.', 'A client certificate needs its private key.')
  }
  if (serverName !== undefined && (!SERVER_NAME.test(serverName) || isIP(serverName) !== 0)) {
    refuse('server-name', 'This is not a host name.', 'Use a DNS name of the certificate.')
  }
  const files = { 'ca-file': caFile, 'cert-file': certFile, 'server-name': serverName } as const
  if (gateway.protocol !== 'ws:') return
  for (const name of ['ca-file', 'cert-file', 'server-name'] as const) {
    if (files[name] === undefined) continue
    refuse(name, 'The option is of no use without TLS.', 'Use a --gateway with wss://.')
  }
}
