/** Addresses have one spelling each, and belong to the network they say. */

import { test } from 'tap'
import {
  bracketed,
  endpointOf,
  isLinkLocal,
  isLoopback,
  isPrivate,
  localHostOf,
  normalizeAddress,
  unbracketed,
} from '@openclaw-k8s/auth-sidecar/lib/address.ts'
import { messageOf } from '@openclaw-k8s/auth-sidecar/lib/errors.ts'
import { listAddresses, listDialable } from '@openclaw-k8s/auth-sidecar/lib/own-addresses.ts'

test('every spelling of an address becomes the one that sockets use', async (t) => {
  const spellings = [
    ['10.0.0.1', '10.0.0.1'],
    ['::ffff:10.0.0.1', '10.0.0.1'],
    ['::FFFF:10.0.0.1', '10.0.0.1'],
    ['::ffff:a00:1', '10.0.0.1'],
    ['0:0:0:0:0:ffff:0a00:0001', '10.0.0.1'],
    ['::ffff:127.0.0.1', '127.0.0.1'],
    ['FD00:0000::0001', 'fd00::1'],
    ['fd00:0:0:0:0:0:0:1', 'fd00::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::1', '::1'],
    ['0:0:0:0:0:0:0:0', '::'],
  ] as const
  for (const [text, spelled] of spellings) t.equal(normalizeAddress(text), spelled, text)
  const others = ['', 'a', '10.0.0', '010.0.0.1', '[::1]', '::g', '::ffff:10.0.0.256', ' ::1']
  for (const text of [undefined, ...others])
    t.equal(normalizeAddress(text), undefined, String(text))
})

test('the network of an address is told in both families', async (t) => {
  const networks = {
    loopback: ['127.0.0.1', '127.9.9.9', '::1'],
    private: ['10.1.2.3', '172.31.0.1', '192.168.1.1', '100.127.0.1', 'fd00::1', 'fc00::1'],
    linkLocal: ['169.254.1.1', 'fe80::1', 'febf::1'],
    none: ['1.2.3.4', '172.32.0.1', '2001:db8::1', 'fc::1', 'fec0::1', '::', '0.0.0.0', '::2'],
  }
  for (const [network, addresses] of Object.entries(networks)) {
    for (const address of addresses) {
      t.strictSame(
        [isLoopback(address), isPrivate(address), isLinkLocal(address)],
        [network === 'loopback', network === 'private', network === 'linkLocal'],
        address,
      )
    }
  }
})

test('an IPv6 host has brackets in text and none at a socket', async (t) => {
  for (const [host, text] of [
    ['fd00::1', '[fd00::1]'],
    ['10.0.0.1', '10.0.0.1'],
    ['gateway', 'gateway'],
  ] as const) {
    t.equal(bracketed(host), text)
    t.equal(unbracketed(text), host)
    t.strictSame(endpointOf(new URL(`ws://${text}:1`)), { host, port: 1 })
  }
  const local = (localAddress: string) => localHostOf({ localAddress, localPort: 18_443 })
  t.equal(local('::ffff:10.0.0.1'), '10.0.0.1:18443')
  t.equal(local('fd00::1'), '[fd00::1]:18443')
  t.equal(local('fe80::1%eth0'), '[fe80::1]:18443')
})

test("a machine's own addresses are those that others can dial", async (t) => {
  const interfaces = {
    lo: [{ address: '127.0.0.1' }, { address: '::1' }],
    eth0: [{ address: '10.0.0.1' }, { address: 'fd00::1' }, { address: 'fe80::1' }],
    dns: [{ address: '169.254.20.10' }],
    net1: [{ address: '10.0.0.1' }],
    gone: undefined,
  }
  t.strictSame(listDialable(interfaces), ['10.0.0.1', 'fd00::1'])
  t.strictSame(listAddresses(interfaces).length, 6)
  t.strictSame(listDialable({}), [])
})

test('a name of which every address fails is told with what each one said', async (t) => {
  const failures = ['connect ECONNREFUSED 127.0.0.1:1', 'connect ECONNREFUSED ::1:1']
  const both = new AggregateError(failures.map((text) => new Error(text)))
  t.equal(messageOf(both), failures.join('; '))
  t.equal(
    messageOf(new AggregateError(Array.from({ length: 9 }, () => new Error('a')))),
    'a; a; a; a',
  )
  t.equal(messageOf(new AggregateError([])), 'AggregateError')
  t.equal(messageOf(new AggregateError([new Error('a')], 'b')), 'b')
  t.equal(messageOf(new TypeError('')), 'TypeError')
})

test("advice for who starts Node is no part of an error's message", async (t) => {
  const advice = 'if the root CA is installed locally, try running Node.js with --use-system-ca'
  t.equal(messageOf(new Error(`unable to verify it; ${advice}`)), 'unable to verify it')
  t.equal(messageOf(new Error('one; two')), 'one; two')
})
