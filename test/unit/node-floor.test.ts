/** The floor of Node: a version without the known security fixes is named, and no other. */

import { readFileSync } from 'node:fs'
import { test } from 'tap'
import { findNodeObjection, SECURITY_RELEASES } from '@openclaw-k8s/auth-sidecar/lib/node-floor.ts'

test('a version of Node below the last known security release of its line is named', async (t) => {
  for (const [line, floor] of Object.entries(SECURITY_RELEASES)) {
    const [, minor = 0, patch = 0] = floor.split('.').map(Number)
    const below = patch > 0 ? `${line}.${minor}.${patch - 1}` : `${line}.${minor - 1}.99`
    for (const older of [below, `${line}.0.0`, `${line}.${minor - 1}.99`]) {
      const objection = `Node.js v${older} lacks the security fixes of v${floor}`
      t.equal(findNodeObjection(`v${older}`), objection)
    }
    for (const newer of [floor, `${line}.${minor}.${patch + 1}`, `${line}.${minor + 1}.0`]) {
      t.equal(findNodeObjection(`v${newer}`), undefined, newer)
    }
  }
})

test('a line of Node that is not maintained is named, and a line to come is not', async (t) => {
  for (const over of ['v20.20.2', 'v21.7.3', 'v23.11.1', 'v25.9.0']) {
    t.equal(findNodeObjection(over), `Node.js ${over} gets no security fixes any more`)
  }
  t.equal(findNodeObjection('v27.0.0'), undefined)
  t.equal(findNodeObjection('v28.1.0-nightly20270401'), undefined)
})

test('the Node that the project installs has the fixes', async (t) => {
  const read = (path: string) =>
    JSON.parse(readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')) as {
      readonly devDependencies: Readonly<Record<string, string>>
    }
  t.equal(findNodeObjection(`v${read('package.json').devDependencies['node']}`), undefined)
})
