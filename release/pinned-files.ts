/** The files in which something is pinned. */

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { findUnpinned } from './unpinned.ts'

const ROOT = join(import.meta.dirname, '..')
const WORKFLOWS = '.github/workflows'

export const PINNED_FILES: readonly string[] = [
  'Dockerfile.sidecar',
  ...readdirSync(join(ROOT, WORKFLOWS)).map((name) => join(WORKFLOWS, name)),
]

/** A file of the checkout, named from its root. */
export const readText = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

/** What is not pinned, once each: `Dockerfile.sidecar: docker.io/library/node:26-slim`. */
export const listUnpinned = (): readonly string[] =>
  PINNED_FILES.flatMap((path) =>
    findUnpinned(path, readText(path)).map((name) => `${path}: ${name}`),
  )
