/** Which requests are session hosting: exactly the listed ones, whatever a stranger writes. */

import { test } from 'tap'
import { findHostingRoute } from '../../sidecar/src/dialect/openclaw/hosting-routes.ts'

const HASH = '0123456789abcdef'.repeat(4)
const ENVIRONMENT = '/__openclaw__/worker-transfer/v1/environments/worker%3A5f2c'
const BUNDLE = `/__openclaw__/worker-bundle/v1/bundles/${HASH}`

const LISTED = [
  ['worker', 'GET', '/__openclaw__/worker'],
  ['bundle', 'GET', BUNDLE],
  ['manifest', 'GET', `${ENVIRONMENT}/snapshots/${HASH}/manifest`],
  ['pack', 'GET', `${ENVIRONMENT}/snapshots/${HASH}/pack`],
  ['blob', 'GET', `${ENVIRONMENT}/blobs/${HASH}`],
  ['reconciliation', 'POST', `${ENVIRONMENT}/reconciliations/${HASH}`],
] as const

const isUpgrade = (route: string) => route === 'worker'

test('each listed route is found by its method and its whole target', async (t) => {
  for (const [route, method, target] of LISTED) {
    t.equal(findHostingRoute({ method, target, isUpgrade: isUpgrade(route) }), route)
  }
})

test('another method, and an upgrade where none belongs, finds no route', async (t) => {
  for (const [route, method, target] of LISTED) {
    for (const other of ['GET', 'POST', 'PUT', 'HEAD', 'get', 'OPTIONS', undefined]) {
      if (other === method) continue
      t.equal(findHostingRoute({ method: other, target, isUpgrade: isUpgrade(route) }), undefined)
    }
    t.equal(findHostingRoute({ method, target, isUpgrade: !isUpgrade(route) }), undefined)
  }
})

test('a target that differs from a listed one in anything finds no route', async (t) => {
  const variants = (target: string) => [
    `${target}?a=b`,
    `${target}?`,
    `${target}#x`,
    `${target}/`,
    `${target}/x`,
    `${target}\n`,
    `${target}%00`,
    `/${target}`,
    `/.${target}`,
    `http://gateway${target}`,
    target.replace('__openclaw__', '%5F_openclaw__'),
    target.replace('/__openclaw__', '/__openclaw__/.'),
    target.toUpperCase(),
    target.slice(0, -1),
  ]
  for (const [route, method, target] of LISTED) {
    for (const other of variants(target)) {
      t.equal(
        findHostingRoute({ method, target: other, isUpgrade: isUpgrade(route) }),
        undefined,
        other,
      )
    }
  }
})

test('an environment is a bounded id, with no escape but one %3A', async (t) => {
  const ids = [
    '',
    '.',
    '..',
    'a.b',
    'a/b',
    'a%2Fb',
    'a%2fb',
    'worker%3a1',
    'worker:1',
    'a%3Ab%3Ac',
    '%3Aa',
    'a%3A',
    'ä',
    'a b',
    'x'.repeat(129),
  ]
  for (const id of ids) {
    const target = `/__openclaw__/worker-transfer/v1/environments/${id}/blobs/${HASH}`
    t.equal(findHostingRoute({ method: 'GET', target, isUpgrade: false }), undefined, id)
  }
})

test('a hash is 64 hexadecimal digits in lower case', async (t) => {
  const hashes = [HASH.slice(1), `${HASH}0`, HASH.toUpperCase(), `g${HASH.slice(1)}`, '']
  for (const hash of hashes) {
    const target = `/__openclaw__/worker-bundle/v1/bundles/${hash}`
    t.equal(findHostingRoute({ method: 'GET', target, isUpgrade: false }), undefined, hash)
  }
})

test('routes of the gateway that are not part of hosting are not listed', async (t) => {
  const others = [
    '/',
    '/tools/invoke',
    '/api/channels',
    '/healthz',
    `/__openclaw__/worker-bootstrap/artifacts/${HASH}`,
    '/__openclaw__/worker/x',
    '/__openclaw__/workers',
  ]
  for (const target of others) {
    for (const upgrade of [true, false]) {
      t.equal(findHostingRoute({ method: 'GET', target, isUpgrade: upgrade }), undefined, target)
    }
  }
})
