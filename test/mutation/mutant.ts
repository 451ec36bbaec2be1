/** A copy of the checkout in which one guard is missing. The checkout itself is never touched. */

import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { linkModules } from '../kit/linked-modules.ts'
import type { Guard } from './guards.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
/** What a day of the simulation is made of. */
const COPIED = ['package.json', 'sidecar', 'gateway-stub', 'test/kit', 'test/sim'] as const
/** The workspaces are found here, and lead into the copy. */
const OWN_PACKAGES = '@openclaw-k8s'

/** Throws unless the guard stands in the source once. */
export const removeGuard = (source: string, { name, text, without }: Guard): string => {
  const times = source.split(text).length - 1
  if (times !== 1) throw new Error(`the guard "${name}" stands ${times} times in its file`)
  return source.replace(text, () => without)
}

export class Mutant {
  readonly directory = mkdtempSync(join(tmpdir(), 'sim-mutant-'))

  constructor() {
    for (const path of COPIED) {
      cpSync(join(ROOT, path), join(this.directory, path), { recursive: true })
    }
    const modules = join(ROOT, 'node_modules')
    const own = join(this.directory, 'node_modules')
    linkModules(modules, own, [OWN_PACKAGES])
    mkdirSync(join(own, OWN_PACKAGES))
    symlinkSync(join(this.directory, 'sidecar'), join(own, OWN_PACKAGES, 'auth-sidecar'))
    symlinkSync(join(this.directory, 'gateway-stub'), join(own, OWN_PACKAGES, 'gateway-stub'))
  }

  /** The copy lacks this guard, and only this one. */
  remove(guard: Guard): void {
    const path = join('sidecar/src', guard.file)
    const source = readFileSync(join(ROOT, path), 'utf8')
    writeFileSync(join(this.directory, path), removeGuard(source, guard))
  }

  /** The copy has all guards again. */
  restore({ file }: Guard): void {
    const path = join('sidecar/src', file)
    cpSync(join(ROOT, path), join(this.directory, path))
  }

  delete(): void {
    rmSync(this.directory, { recursive: true, force: true })
  }
}
