/** A pod with IPv6 alone, with both families, and without IPv6: the sidecar serves at each address it has. */

import { test, type Test } from 'tap'
import type { Observed } from '../kit/network-world-inside.ts'
import { observe, whyNoWorld } from '../kit/network-world.ts'

const skip = whyNoWorld() ?? false
const NO_IPV6 = 'this machine has no IPv6: [::] is every IPv4 address'
const POD = { ipv4: '10.244.1.1', ipv6: 'fd00:10::1' }
const WORKER = { ipv4: '10.244.1.2', ipv6: 'fd00:10::2' }
const OTHER = { ipv4: '10.244.1.3', ipv6: 'fd00:10::3' }
const AUTHORITY = { ipv4: POD.ipv4, ipv6: `[${POD.ipv6}]` }

type Family = keyof typeof POD

/** What holds at every address of the pod, whatever else the world has. */
const checkServed = (t: Test, seen: Observed, families: readonly Family[]) => {
  for (const family of families) {
    t.equal(seen.probes[family], 200, `the kubelet's probe at ${POD[family]}`)
    t.strictSame(
      seen.own[family],
      {
        from: WORKER[family],
        code: 'ok',
        forwardedFor: WORKER[family],
        forwardedHost: `${AUTHORITY[family]}:18443`,
      },
      'a worker at the address of its pod',
    )
    t.match(
      seen.others[family],
      { from: OTHER[family], code: /^source_address_(?:mismatch|unconfirmed)$/ },
      'its token at another address',
    )
    t.equal(seen.connect[family], 'ok', 'a worker beside connect')
    t.equal(seen.status[family], 404, 'the address of the pod is not loopback')
    t.ok(seen.audit.includes(`k8s-auth-success ${WORKER[family]}`), 'the audit has the address')
    t.ok(seen.audit.includes(`k8s-auth-failed ${OTHER[family]}`), 'of a refusal, too')
  }
  t.equal(seen.status.loopback, 200, 'loopback is local, as ::ffff:127.0.0.1 too')
  t.notMatch(seen.audit.join('\n'), /::ffff:/)
  t.strictSame(seen.drained, { code: 0, stdout: 'drained: 1 stream closed\n', stderr: '' })
  t.strictSame(seen.ended, { code: 1012, reason: 'draining' })
}

const addressesOf = ({ doctor }: Observed): readonly string[] =>
  doctor.stdout.split('\n').filter((line) => line.includes('] addresses: '))

test(
  'in a pod with IPv6 alone it serves by default, and connect, doctor and drain reach it',
  { skip },
  async (t) => {
    const seen = await observe({ hasIpv4: false, hasIpv6: true })
    t.strictSame(seen.listening, { workers: '[::]:18443', admin: '[::]:9464' })
    checkServed(t, seen, ['ipv6'])
    t.strictSame(addressesOf(seen), [
      '[ok] addresses: listen.admin answers at [fd00:10::1]:9464',
      '[ok] addresses: listen.workers answers at [fd00:10::1]:18443',
    ])
    t.equal(seen.doctor.code, 0, seen.doctor.stdout)
    t.match(
      seen.doctor.stdout,
      /^\[ok\] api-server: Kubernetes \S+ at https:\/\/\[::1\]:\d+ accepts/m,
    )
    t.notOk(seen.log.includes(NO_IPV6))
  },
)

test(
  'in a dual-stack pod both families are served, and an IPv4 worker is IPv4 everywhere',
  { skip },
  async (t) => {
    const seen = await observe({ hasIpv4: true, hasIpv6: true })
    t.strictSame(seen.listening, { workers: '[::]:18443', admin: '[::]:9464' })
    checkServed(t, seen, ['ipv4', 'ipv6'])
    t.strictSame(addressesOf(seen), [
      '[ok] addresses: listen.admin answers at 10.244.1.1:9464 and [fd00:10::1]:9464',
      '[ok] addresses: listen.workers answers at 10.244.1.1:18443 and [fd00:10::1]:18443',
    ])
    t.equal(seen.doctor.code, 0, seen.doctor.stdout)
  },
)

test('where the kernel has no IPv6 it serves on IPv4, and says so once', { skip }, async (t) => {
  const seen = await observe({ hasIpv4: true, hasIpv6: false })
  t.strictSame(seen.listening, { workers: '0.0.0.0:18443', admin: '0.0.0.0:9464' })
  checkServed(t, seen, ['ipv4'])
  t.equal(seen.log.filter((line) => line === NO_IPV6).length, 1)
  t.strictSame(addressesOf(seen), [
    '[ok] addresses: listen.admin answers at 10.244.1.1:9464',
    '[ok] addresses: listen.workers answers at 10.244.1.1:18443',
  ])
})

test(
  'an address that is written out is taken as it is, and doctor names what it leaves out',
  { skip },
  async (t) => {
    const seen = await observe({
      hasIpv4: true,
      hasIpv6: true,
      set: ['listen.admin=0.0.0.0:9464'],
      doctorSet: ['listen.workers=[::]:1'],
    })
    t.strictSame(seen.listening, { workers: '[::]:18443', admin: '0.0.0.0:9464' })
    t.equal(seen.probes.ipv4, 200)
    t.match(seen.probes.ipv6, /ECONNREFUSED/)
    t.strictSame(addressesOf(seen), [
      '[fail] addresses: workers cannot reach listen.workers: nothing listens on 10.244.1.1:1; ' +
        'nothing listens on [fd00:10::1]:1. Listen on [::]:1, which is every address of both families.',
      "[warn] addresses: the kubelet's probes cannot reach listen.admin: connect ECONNREFUSED fd00:10::1:9464; " +
        'it answers at 10.244.1.1:9464. Listen on [::]:9464, which is every address of both families. ' +
        "It is enough if the pod's own address answers.",
    ])
    t.equal(seen.doctor.code, 69)
    t.notOk(seen.log.includes(NO_IPV6), 'an IPv4 address that was asked for is not a fallback')
  },
)
