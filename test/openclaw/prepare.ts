/** What the suite and the demonstration need before they can run: the product and a namespace. */

import { findNamespace } from './namespace.ts'
import { install, isInstalled } from './product.ts'

/** The arguments of `unshare` that work here, or why there is nothing to run. */
export const prepare = async (): Promise<
  { readonly namespace: readonly string[] } | { readonly why: string }
> => {
  const found = findNamespace()
  if ('why' in found) return found
  if (!isInstalled()) {
    process.stdout.write('installing OpenClaw, once …\n')
    try {
      await install()
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      return { why: `OpenClaw could not be installed: ${why}` }
    }
  }
  return { namespace: found.args }
}
