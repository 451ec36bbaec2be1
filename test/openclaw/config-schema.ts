/** What a version's own schema says about its configuration: an unknown key ends an older gateway. */

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { productCommand, productEnv, type Product } from './product.ts'

type SchemaNode = { readonly properties?: Readonly<Record<string, SchemaNode>> }

const LIMIT_MS = 180_000
/** It has some 80,000 lines. */
const SCHEMA_BYTES_MAX = 32 * 1024 * 1024

export type ConfigSchema = {
  /** Whether the version knows a key, given as a path such as `gateway.auth.mode`. */
  readonly knows: (path: string) => boolean
}

/** Asks the product itself; takes the time of one call of its command line. */
export const readConfigSchema = async (product: Product, home: string): Promise<ConfigSchema> => {
  const env = await productEnv(home)
  const { command, args } = productCommand({ product, args: ['config', 'schema'], env })
  const limits = { timeout: LIMIT_MS, maxBuffer: SCHEMA_BYTES_MAX }
  const { stdout } = await promisify(execFile)(command, args, { env, ...limits })
  return parseConfigSchema(stdout)
}

/** The schema is the object in the output; a banner can stand before it. */
export const parseConfigSchema = (text: string): ConfigSchema => {
  const root = JSON.parse(text.slice(text.indexOf('{'))) as SchemaNode
  return {
    knows: (path) => {
      let node: SchemaNode | undefined = root
      for (const key of path.split('.')) node = node?.properties?.[key]
      return node !== undefined
    },
  }
}
