/** Configurations for tests, from a document, variables and flags. */

import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { ConfigError } from '@openclaw-k8s/auth-sidecar/config/config-error.ts'
import type { Problem } from '@openclaw-k8s/auth-sidecar/config/config-error.ts'
import type { Config } from '@openclaw-k8s/auth-sidecar/config/schema.ts'

export type Sources = {
  readonly file?: string
  readonly env?: Readonly<Record<string, string>>
  readonly flags?: readonly string[]
}

export const FILE = 'config.yaml'
/** The least document that loads; more can be appended under other sections. */
export const WORKERS =
  'k8sTrust:\n  allowedIdentities: [{ namespace: openclaw, serviceAccount: worker }]\n'

export const load = ({ file = WORKERS, env = {}, flags = [] }: Sources) =>
  loadConfig({ file: FILE, env, flags, readFile: () => file })

export const problemsOf = (sources: Sources): readonly Problem[] => {
  try {
    load(sources)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  return []
}

/** The document that sets one dotted path, in flow style, in a file that is otherwise good. */
export const documentOf = (path: string, value: string): string => {
  const keys = path.split('.')
  const nested = keys.reduceRight((inner, key) => `{ ${key}: ${inner} }`, value)
  return keys[0] === 'k8sTrust' ? nested : `${WORKERS}${nested.slice(2, -2)}\n`
}

export const valueAt = (config: Config, path: string): unknown =>
  path.split('.').reduce<unknown>((node, key) => (node as Record<string, unknown>)[key], config)

export const ORIGINAL = `{
  "gateway": {
    "mode": "local",
    "port": 18790,
    "bind": "lan",
    "auth": {
      "mode": "token",
      "k8sTrust": {
        "enabled": true,
        "allowedIdentities": [
          { "namespace": "openclaw", "serviceAccount": "openclaw-worker", "allowedRoles": ["node"] }
        ],
        "ephemeralSessions": true,
        "auditLog": true
      }
    }
  }
}`
