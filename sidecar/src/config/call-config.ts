/** What a call to the running sidecar needs of its configuration, even where the file is broken now. */

import { ConfigError } from './config-error.ts'
import { parseText } from './document.ts'
import { loadConfig, type LoadOptions } from './load.ts'
import { applyOverrides, fromEnvironment, fromFlags } from './overrides.ts'
import { CALL_OPTIONS, type Config } from './schema.ts'

export type CallConfig = {
  readonly listen: Pick<Config['listen'], 'admin'>
  readonly kubernetes: Pick<Config['kubernetes'], 'apiServer' | 'tokenFile'>
  readonly drain: Config['drain']
}

type Read = {
  readonly config: CallConfig
  /** What is wrong with the whole, where something is. */
  readonly error?: ConfigError
}

/**
 * The running sidecar has its last good configuration: a mistake made since then must not keep a pod
 * from being drained. Of a broken document each option that is not valid has its default.
 */
export function loadCallConfig(options: LoadOptions): Read {
  try {
    return { config: loadConfig(options).config }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return { config: readLeniently(options), error }
  }
}

function readLeniently(options: LoadOptions): CallConfig {
  const { overrides: fromEnv } = fromEnvironment(options.env)
  const { overrides: fromSet } = fromFlags(options.flags)
  const tree = applyOverrides(readDocument(options), [...fromEnv, ...fromSet])
  const { admin, apiServer, tokenFile, window } = CALL_OPTIONS
  return {
    listen: { admin: valueOf(admin, tree, 'listen', 'admin') },
    kubernetes: {
      apiServer: valueOf(apiServer, tree, 'kubernetes', 'apiServer'),
      tokenFile: valueOf(tokenFile, tree, 'kubernetes', 'tokenFile'),
    },
    drain: { window: valueOf(window, tree, 'drain', 'window') },
  }
}

/** `undefined` where the file cannot be read; otherwise as much of it as is YAML. */
function readDocument({ file = '', defaultFile = '', readFile }: LoadOptions): unknown {
  const name = file === '' ? defaultFile : file
  try {
    const parsed = parseText(readFile(name), name)
    return parsed.ok ? parsed.document.value : parsed.partial
  } catch {
    return undefined
  }
}

type Schema<T> = {
  readonly parse: (value: unknown) => T
  readonly safeParse: (value: unknown) => { readonly success: boolean; readonly data?: T }
}

function valueOf<T>(schema: Schema<T>, tree: unknown, ...path: readonly string[]): T {
  const value = path.reduce((node, key) => (node as Record<string, unknown> | null)?.[key], tree)
  const read = schema.safeParse(value)
  return read.success ? (read.data as T) : schema.parse(undefined)
}
