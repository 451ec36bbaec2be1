/** The addresses in the configuration: where we listen, and the URLs of gateway and API server. */

import { isIP } from 'node:net'
import * as z from 'zod'
import { bracketed, isLoopback, normalizeAddress, unbracketed } from '../lib/address.ts'

/** Where a port listens. `host` is a name or a normalized address; port 0 lets the system choose. */
export type Address = { readonly host: string; readonly port: number }

const ADDRESS_PATTERN = /^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):([0-9]{1,5})$/
const HOST_PATTERN = /^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(:[0-9]{1,5})?$/
const URL_LENGTH_MAX = 2_048
/** Scheme, credentials, host and port of a URL. */
const AUTHORITY = /^[a-z]+:\/\/[^/?#]*/
const ADDRESS_HINT = 'Write host:port, such as [::]:18443 or 10.0.0.1:18443.'

/** A codec of `host:port` and an `Address`. */
export const address = () =>
  z.codec(
    z.string({ error: 'An address must be text: host:port.' }).regex(ADDRESS_PATTERN, {
      error:
        'This is not an address. Expected host:port, with IPv6 in brackets and without a zone.',
    }),
    z.object({ host: z.string(), port: z.number() }),
    {
      decode(value, payload) {
        const [, name = '', port = ''] = ADDRESS_PATTERN.exec(value) ?? []
        const parsed = { host: unbracketed(name), port: Number(port) }
        const reason = addressFault(name, parsed)
        if (reason !== undefined) payload.issues.push(problem(value, reason, ADDRESS_HINT))
        return { ...parsed, host: normalizeAddress(parsed.host) ?? parsed.host }
      },
      encode: ({ host, port }) => `${bracketed(host)}:${port}`,
    },
  )

/** The sidecar's public name: it is sent but never connected to, so only its form is checked. */
export const publicHost = () =>
  z
    .string()
    .regex(HOST_PATTERN, { error: 'This is not a host. Expected name or name:port, not a URL.' })

/** The gateway's URL as text; whether its host is allowed depends on `allowRemoteGateway`. */
export const gatewayUrl = () =>
  z
    .string()
    .max(URL_LENGTH_MAX)
    .regex(/^ws:\/\//, { error: 'The gateway URL must start with ws://.', abort: true })
    .superRefine((value, context) => {
      const reason = urlFault(value)
      if (reason !== undefined) context.addIssue(problem(value, reason))
    })

/**
 * The API server's URL as text: https only, since our own token travels on it. A path comes before
 * the path of every request, as behind a proxy that serves several clusters.
 */
export const apiServerUrl = () =>
  z
    .string()
    .max(URL_LENGTH_MAX)
    .regex(/^https:\/\//, { error: 'The API server URL must start with https://.', abort: true })
    .superRefine((value, context) => {
      const reason = urlFault(value) ?? queryFault(value)
      if (reason !== undefined) context.addIssue(problem(value, reason))
    })

/** Whether a host, as written in an address or a URL, can only mean this machine. */
export function isLoopbackHost(host: string): boolean {
  if (host === 'localhost') return true
  const bare = normalizeAddress(unbracketed(host))
  return bare !== undefined && isLoopback(bare)
}

/** Whether a host means every address of the machine. */
export const isWildcardHost = (host: string): boolean => ['0.0.0.0', '::', '[::]'].includes(host)

/** The host for a client on the same machine. A port on `::` is on both families, or on IPv4 alone. */
const LOCAL_HOSTS: Readonly<Record<string, string>> = { '::': 'localhost', '0.0.0.0': '127.0.0.1' }

/** The URL of a port for a client on the same machine; `undefined` if the system chooses the port. */
export const localOriginOf = ({ host, port }: Address): string | undefined =>
  port === 0 ? undefined : `http://${bracketed(LOCAL_HOSTS[host] ?? host)}:${port}`

function addressFault(name: string, parsed: Address): string | undefined {
  if (parsed.port > 65_535) return 'The port is out of range: 0 to 65535.'
  if (name.startsWith('[') && isIP(parsed.host) !== 6) return 'This is not an IPv6 address.'
  if (/^[0-9.]+$/.test(name) && isIP(name) !== 4) return 'This is not an IPv4 address.'
  return undefined
}

function urlFault(value: string): string | undefined {
  if (!URL.canParse(value)) return 'This is not a URL.'
  const url = new URL(value)
  if (url.port === '0') return 'Port 0 is not allowed in a URL.'
  if (AUTHORITY.exec(value)?.[0].includes('@')) return 'Credentials are not allowed in a URL.'
  if (value.includes('#')) return 'A fragment is not allowed in this URL.'
  return pathFault(value, url)
}

/** Parsing changes such a path in silence: what is asked for would not be what is written. */
function pathFault(value: string, url: URL): string | undefined {
  const written = value.replace(AUTHORITY, '').replace(/\?.*$/s, '')
  const isKept = written === url.pathname || (written === '' && url.pathname === '/')
  return isKept ? undefined : `This path is not in its normal form, which is ${url.pathname}.`
}

const queryFault = (value: string): string | undefined =>
  value.includes('?') ? 'A query is not allowed in this URL.' : undefined

const problem = (input: unknown, message: string, hint?: string) =>
  ({ code: 'custom', input, message, ...(hint === undefined ? {} : { params: { hint } }) }) as const
