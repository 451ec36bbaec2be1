/** The original, nested form (`gateway.auth.k8sTrust`), rewritten into the sidecar's own form. */

import type { Finding, Path } from './problems.ts'

type Section = Readonly<Record<string, unknown>>

export type Rewritten = {
  readonly value: unknown
  /** Maps a path of the rewritten document to the document as it was written. */
  readonly origin: (path: Path) => Path
  readonly findings: readonly Finding[]
  readonly warnings: readonly { readonly path: Path; readonly text: string }[]
}

const DEFAULT_PORT = 18_789
const TRUST_PATH: Path = ['gateway', 'auth', 'k8sTrust']
const PORT_PATH: Path = ['gateway', 'port']

/** The rewritten document, or undefined if the document already has the sidecar's own form. */
export function rewriteOriginal(value: unknown): Rewritten | undefined {
  if (!isSection(value) || !isSection(value['gateway'])) return undefined
  const { gateway, ...root } = value
  if (!isSection(gateway) || !isSection(gateway['auth'])) return undefined
  if (!Object.hasOwn(gateway['auth'], 'k8sTrust')) return undefined

  const { mode, port, bind, auth, ...ours } = gateway
  const { k8sTrust, ...authRest } = auth
  const hasPort = Object.hasOwn(gateway, 'port')
  const url = hasPort || !Object.hasOwn(ours, 'url') ? { url: urlOf(port) } : {}
  return {
    value: { ...root, gateway: { ...ours, ...url, auth: authRest }, k8sTrust },
    origin: hasPort ? (path) => originOf(path) : (path) => trustOrigin(path),
    findings: [
      ...modeFindings(mode),
      ...portFindings(gateway),
      ...(Object.hasOwn(value, 'k8sTrust') ? [TRUST_TWICE] : []),
    ],
    warnings: bindWarnings(bind),
  }
}

const TRUST_TWICE: Finding = {
  path: TRUST_PATH,
  at: 'key',
  reason: 'k8sTrust is set twice in this document.',
  hint: 'Keep the top-level one.',
}

const urlOf = (port: unknown): string => `ws://127.0.0.1:${isPort(port) ? port : DEFAULT_PORT}`

const isPort = (port: unknown): port is number =>
  typeof port === 'number' && Number.isInteger(port) && port >= 1 && port <= 65_535

function modeFindings(mode: unknown): Finding[] {
  if (mode === undefined || mode === 'local') return []
  return [
    {
      path: ['gateway', 'mode'],
      at: 'value',
      reason: 'The sidecar supports only a gateway in mode local.',
      hint: 'Set gateway.mode to local.',
    },
  ]
}

function portFindings(gateway: Section): Finding[] {
  if (!Object.hasOwn(gateway, 'port')) return []
  if (Object.hasOwn(gateway, 'url')) {
    const reason = "gateway.port and gateway.url both set the gateway's address."
    return [{ path: PORT_PATH, at: 'key', reason, hint: 'Keep one of them.' }]
  }
  if (isPort(gateway['port'])) return []
  return [{ path: PORT_PATH, at: 'value', reason: 'Expected a port, 1 to 65535.' }]
}

function bindWarnings(bind: unknown): Rewritten['warnings'] {
  if (bind === undefined || bind === 'loopback') return []
  const text =
    'Workers could then bypass the sidecar and reach the gateway directly. Set it to loopback, ' +
    'so that they can only connect through the sidecar.'
  return [{ path: ['gateway', 'bind'], text }]
}

const trustOrigin = (path: Path): Path =>
  path[0] === 'k8sTrust' ? [...TRUST_PATH, ...path.slice(1)] : path

const originOf = (path: Path): Path =>
  path[0] === 'gateway' && path[1] === 'url' ? PORT_PATH : trustOrigin(path)

const isSection = (value: unknown): value is Section =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
