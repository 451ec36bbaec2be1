/** A configuration as text without secrets. */

import { stringify } from 'yaml'
import { toDocument } from './schema.ts'
import type { Config } from './schema.ts'

const MASK = '***'
/** Only the end of a key counts: `maxTokenLifetime` is not a token, `secretFile` not a secret. */
const SECRET_KEY = /(token|secret|password|seed)$/i
/** Three base64url parts; the first one starts a JSON object. */
const JWT = /eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*/g
const USERINFO = /\b([a-z][a-z0-9+.-]*:\/\/)[^/?#\s]*@/gi

/** The configuration as YAML that loads again to the same configuration, except for secrets. */
export const printConfig = (config: Config): string =>
  stringify(maskSecrets(toDocument(config)), { lineWidth: 0 })

/**
 * Masks secrets. The schema has no option for a secret, only for files that hold one, but a token
 * pasted into the wrong option must not be printed either.
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
