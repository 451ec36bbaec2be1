/** A configuration as text that may be shown to anybody. */

import { stringify } from 'yaml'
import { toDocument } from './schema.ts'
import type { Config } from './schema.ts'

const MASK = '***'
/** The end of a key names what it holds: `maxTokenLifetime` is no token, `secretFile` no secret. */
const SECRET_KEY = /(token|secret|password|seed)$/i
/** Three base64url parts, the first of which opens a JSON object. */
const JWT = /eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*/g
const USERINFO = /\b([a-z][a-z0-9+.-]*:\/\/)[^/?#\s]*@/gi

/** The configuration as YAML that loads again to the same configuration, secrets aside. */
export const printConfig = (config: Config): string =>
  stringify(maskSecrets(toDocument(config)), { lineWidth: 0 })

/**
 * Masks what must not be printed. The schema has no option for a secret, only for files with one;
 * a token pasted into the wrong place shall not be printed all the same.
 */
export function maskSecrets(value: unknown, key = ''): unknown {
  if (SECRET_KEY.test(key)) return MASK
  if (Array.isArray(value)) return value.map((item: unknown) => maskSecrets(item, key))
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([name, child]) => [name, maskSecrets(child, name)]),
    )
  }
  if (typeof value !== 'string') return value
  return value.replace(JWT, MASK).replace(USERINFO, `$1${MASK}@`)
}
