/** The list of guards that the simulation must miss is in step with the sources. */

import { readFileSync } from 'node:fs'
import { test } from 'tap'
import { GUARDS } from '../mutation/guards.ts'
import { removeGuard } from '../mutation/mutant.ts'

const SOURCES = new URL('../../sidecar/src/', import.meta.url)

test('each guard stands in its file once, and can be removed', async (t) => {
  t.ok(GUARDS.length >= 25)
  for (const guard of GUARDS) {
    const source = readFileSync(new URL(guard.file, SOURCES), 'utf8')
    t.not(removeGuard(source, guard), source, guard.name)
  }
  t.throws(() => removeGuard('', GUARDS[0]!), /stands 0 times/)
  t.equal(new Set(GUARDS.map(({ name }) => name)).size, GUARDS.length)
})
