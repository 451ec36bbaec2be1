/** The dependencies of another folder, without what a program writes beside them. */

import { mkdirSync, readdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'

/** Makes the folder `to` with a link to each entry of `from`, but for those of these names. */
export const linkModules = (from: string, to: string, except: readonly string[]): void => {
  mkdirSync(to, { recursive: true })
  for (const name of readdirSync(from)) {
    if (!except.includes(name)) symlinkSync(join(from, name), join(to, name))
  }
}
