/** What the suite and the demonstration need before they can run: the product and a namespace. */

import { provideProduct, UnknownVersion } from './install.ts'
import { findNamespace } from '../kit/namespace.ts'
import { PINNED, type Product } from './product.ts'

export type Prepared = {
  /** The arguments of `unshare` that work here. */
  readonly namespace: readonly string[]
  /** As many as were asked for, in that order. */
  readonly products: readonly Product[]
}

/** What is needed, or why nothing can run here. A version that was never published throws. */
export const prepare = async (
  versions: readonly string[] = [PINNED.version],
): Promise<Prepared | { readonly why: string }> => {
  const found = findNamespace()
  if ('why' in found) return found
  const products: Product[] = []
  for (const version of versions) {
    try {
      products.push(await provideProduct(version, say))
    } catch (error) {
      if (error instanceof UnknownVersion) throw error
      const why = error instanceof Error ? error.message : String(error)
      return { why: `OpenClaw ${version} could not be installed: ${why}` }
    }
  }
  return { namespace: found.args, products }
}

const say = (text: string): void => void process.stdout.write(`${text}\n`)
