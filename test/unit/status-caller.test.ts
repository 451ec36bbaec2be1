/** Who is shown the status: callers on this machine, and no page of another site. */

import type { Socket } from 'node:net'
import { test } from 'tap'
import { isLoopback } from '@openclaw-k8s/auth-sidecar/lib/address.ts'
import {
  findStatusObjection,
  isFetchedElsewhere,
  isOfBrowserElsewhere,
  isOnLoopback,
} from '@openclaw-k8s/auth-sidecar/edge/status-caller.ts'

const callerOf = (
  headers: Readonly<Record<string, readonly string[]>>,
  remoteAddress = '127.0.0.1',
  localAddress = '127.0.0.1',
) => ({
  headersDistinct: headers as NodeJS.Dict<string[]>,
  socket: { remoteAddress, localAddress } as Socket,
})

test('both ends have to be on loopback, in every spelling of it', async (t) => {
  for (const address of ['127.0.0.1', '::1', '::ffff:127.0.0.1']) {
    t.ok(isOnLoopback(callerOf({}, address, address), isLoopback), address)
  }
  const others = [
    ['10.244.0.7', '10.244.0.9'],
    ['::ffff:10.244.0.7', '::ffff:10.244.0.9'],
    ['fd00::7', 'fd00::9'],
    // The proxies of meshes: Linkerd's, and Istio's.
    ['10.244.0.9', '10.244.0.9'],
    ['127.0.0.6', '10.244.0.9'],
  ] as const
  for (const [remote, local] of others) {
    t.notOk(isOnLoopback(callerOf({}, remote, local), isLoopback), `${remote} to ${local}`)
  }
})

test('a request that a proxy passes on is not from this machine', async (t) => {
  for (const name of ['forwarded', 'via', 'x-forwarded-for', 'x-forwarded-proto']) {
    t.notOk(isOnLoopback(callerOf({ [name]: ['x'] }), isLoopback), name)
  }
})

test('the Host names loopback, and the Origin is the same', async (t) => {
  const good = ['localhost', 'LOCALHOST:9464', '127.0.0.1:19464', '[::1]:9464', '127.0.0.1']
  for (const host of good) {
    t.notOk(isOfBrowserElsewhere(callerOf({ host: [host] })), host)
    t.notOk(isOfBrowserElsewhere(callerOf({ host: [host], origin: [`http://${host}`] })), host)
  }
  const bad = [
    'rebound.example:9464',
    'localhost.example',
    'localhost.',
    '127.0.0.1.example',
    'example@localhost',
    '10.0.0.1:9464',
    '0.0.0.0',
    '[::ffff:10.0.0.1]',
    '',
  ]
  for (const host of bad) t.ok(isOfBrowserElsewhere(callerOf({ host: [host] })), host)
  t.ok(isOfBrowserElsewhere(callerOf({})), 'without a Host')
  t.ok(isOfBrowserElsewhere(callerOf({ host: ['localhost', 'localhost'] })), 'with two')
  const origins = [
    'null',
    'https://localhost:9464',
    'http://localhost:3000',
    'http://evil.example',
    '',
  ]
  for (const origin of origins) {
    const caller = callerOf({ host: ['localhost:9464'], origin: [origin] })
    t.ok(isOfBrowserElsewhere(caller), origin)
  }
})

test('a fetch for a page of another site is told by the browser', async (t) => {
  for (const site of ['cross-site', 'same-site', 'anything']) {
    t.ok(isFetchedElsewhere(callerOf({ 'sec-fetch-site': [site] })), site)
  }
  for (const site of ['same-origin', 'none']) {
    t.notOk(isFetchedElsewhere(callerOf({ 'sec-fetch-site': [site] })), site)
  }
  t.notOk(isFetchedElsewhere(callerOf({})), 'a command has no such header')
})

test('the status is off where loopback is, or may be, that of the node', async (t) => {
  const interfaces = { lo: [{ address: '127.0.0.1' }], eth0: [{ address: '10.0.0.1' }] }
  const inPod = { KUBERNETES_SERVICE_HOST: '10.96.0.1' }
  const ask = (env: Readonly<Record<string, string>>) => findStatusObjection({ env, interfaces })
  t.match(ask({ ...inPod, HOST_IP: '10.0.0.1' }), /host network/)
  t.match(ask(inPod), /HOST_IP is not set/)
  t.match(ask({ ...inPod, HOST_IP: 'node-1' }), /not an IP address/)
  t.equal(ask({ ...inPod, HOST_IP: '10.0.0.2' }), undefined)
  t.equal(ask({}), undefined, 'outside of a pod')
})
