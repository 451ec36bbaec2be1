/** The options of `connect`: what they may be, and where it refuses to listen. */

import { test } from 'tap'
import { ConfigError } from '@openclaw-k8s/auth-sidecar/config/config-error.ts'
import { findHostNetworkProblem } from '@openclaw-k8s/auth-sidecar/connect/host-network.ts'
import { readConnectOptions, type Given } from '@openclaw-k8s/auth-sidecar/connect/options.ts'

const GATEWAY = { gateway: 'wss://openclaw-gateway:18789' }

/** The options at fault. */
const faultsOf = (given: Given): readonly string[] => {
  try {
    readConnectOptions(given)
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const { reason, hint } of error.problems) {
      if (!/^[A-Zw].+\.$/.test(reason) || !hint) return [`${reason} ${hint}`]
    }
    return error.problems.map(({ path }) => path)
  }
}

test('only the gateway has to be named', async (t) => {
  const { gateway, ...rest } = readConnectOptions(GATEWAY)
  t.equal(gateway.host, 'openclaw-gateway:18789')
  t.strictSame(rest, {
    listen: { kind: 'tcp', host: '127.0.0.1', port: 18789 },
    tokenFile: '/var/run/secrets/openclaw/token',
    credentialHeader: 'X-OpenClaw-SA-Token',
    role: undefined,
    sessionHosting: false,
    caFile: undefined,
    serverName: undefined,
    certFile: undefined,
    keyFile: undefined,
    logLevel: 'info',
  })
  t.strictSame(faultsOf({}), ['--gateway'])
})

test('it listens on loopback addresses and Unix sockets, and nowhere else', async (t) => {
  const listen = (text: string) => readConnectOptions({ ...GATEWAY, listen: text }).listen
  t.strictSame(listen('localhost:1'), { kind: 'tcp', host: '127.0.0.1', port: 1 })
  t.strictSame(listen('[::1]:1'), { kind: 'tcp', host: '::1', port: 1 })
  t.strictSame(listen('127.9.9.9:0'), { kind: 'tcp', host: '127.9.9.9', port: 0 })
  t.strictSame(listen('unix:/run/a'), { kind: 'unix', path: '/run/a' })
  const refused = ['0.0.0.0:1', '[::]:1', '10.0.0.1:1', ':1', '1', '[::ffff:10.0.0.1]:1', 'a:1']
  const malformed = [
    '127.0.0.1',
    '127.0.0.1:65536',
    '127.0.0.1:x',
    'unix:',
    'unix:a',
    '999.0.0.1:1',
  ]
  for (const text of [...refused, ...malformed, `unix:/${'a'.repeat(107)}`]) {
    t.strictSame(faultsOf({ ...GATEWAY, listen: text }), ['--listen'], text)
  }
})

test('a token crosses the network in the clear only inside the cluster', async (t) => {
  const inside = [
    'ws://127.0.0.1:1',
    'ws://localhost',
    'ws://[::1]:1',
    'ws://10.1.2.3:1',
    'ws://172.16.0.1',
    'ws://192.168.1.1',
    'ws://100.64.0.1',
    'ws://[fd00::1]',
    'ws://[::ffff:10.1.2.3]',
    'ws://openclaw-gateway:18789',
    'ws://openclaw-gateway.openclaw.svc',
    'ws://openclaw-gateway.openclaw.svc.cluster.local:18789',
    'wss://gateway.example.com',
  ]
  for (const gateway of inside) t.strictSame(faultsOf({ gateway }), [], gateway)
  const outside = [
    'ws://gateway.example.com',
    'ws://svc.example.com',
    'ws://1.2.3.4',
    'ws://172.32.0.1',
    'ws://[2001:db8::1]',
    'ws://[fc::1]',
    'ws://[::ffff:1.2.3.4]',
    'ws://openclaw-gateway.openclaw',
    'ws://gateway.team.svc.evil.example',
    'ws://gateway.svc.cluster.local.example',
  ]
  for (const gateway of outside) t.strictSame(faultsOf({ gateway }), ['--gateway'], gateway)
})

test('the gateway is a WebSocket URL without a path, a query or credentials', async (t) => {
  const refused = [
    'openclaw-gateway:18789',
    'https://a',
    'wss://a/path',
    'wss://a?b',
    'wss://a#b',
    'wss://b:c@a',
    'wss://a:0',
    'wss://',
    '',
  ]
  for (const gateway of refused) t.strictSame(faultsOf({ gateway }), ['--gateway'], gateway)
  t.equal(readConnectOptions({ gateway: 'wss://a/' }).gateway.host, 'a')
})

test("the credential header has no meaning of its own: Authorization is the gateway's", async (t) => {
  const refused = ['Authorization', 'authorization', 'Host', 'Content-Type', 'Accept-Encoding']
  for (const name of [...refused, 'X-Forwarded-For', 'Sec-Foo', 'a b', '', 'a'.repeat(65)]) {
    const given = { ...GATEWAY, 'credential-header': name, 'session-hosting': true }
    t.strictSame(faultsOf(given), ['--credential-header'], name)
  }
  t.strictSame(faultsOf({ ...GATEWAY, 'credential-header': 'X-Mine' }), [])
})

test('every option that is wrong is named at once', async (t) => {
  t.strictSame(
    faultsOf({
      gateway: 'ws://127.0.0.1',
      'log-level': 'loud',
      role: 'a b',
      'ca-file': '/ca',
      'cert-file': '/cert',
      'server-name': '127.0.0.1',
    }),
    [
      '--log-level',
      '--role',
      '--key-file',
      '--server-name',
      '--ca-file',
      '--cert-file',
      '--server-name',
    ],
  )
  t.strictSame(faultsOf({ ...GATEWAY, 'key-file': '/key' }), ['--cert-file'])
})

const TCP = { kind: 'tcp', host: '127.0.0.1', port: 1 } as const
const UNIX = { kind: 'unix', path: '/run/a' } as const
const interfacesOf = (...addresses: readonly string[]) => ({
  lo: [{ address: '127.0.0.1' }],
  eth0: addresses.map((address) => ({ address })),
})
const IN_A_POD = { KUBERNETES_SERVICE_HOST: '10.96.0.1' }

test('on the host network it listens on a Unix socket only', async (t) => {
  const hosts = [
    ['10.0.0.1', interfacesOf('10.0.0.1')],
    ['fd00::1', interfacesOf('10.0.0.1', 'fd00::1')],
    ['10.0.0.1', interfacesOf('::ffff:10.0.0.1')],
  ] as const
  for (const [address, interfaces] of hosts) {
    const place = { env: { ...IN_A_POD, HOST_IP: address }, interfaces }
    t.match(findHostNetworkProblem(TCP, place), { path: '--listen', hint: /unix:/ }, address)
    t.equal(findHostNetworkProblem(UNIX, place), undefined)
  }
})

test('on a network of its own a pod has another address than its node', async (t) => {
  const place = {
    env: { ...IN_A_POD, HOST_IP: '10.0.0.1' },
    interfaces: interfacesOf('10.244.0.9'),
  }
  t.equal(findHostNetworkProblem(TCP, place), undefined)
})

test("a pod that does not know its node's address is refused; outside of a pod there is none", async (t) => {
  const interfaces = interfacesOf('10.244.0.9')
  for (const env of [IN_A_POD, { ...IN_A_POD, HOST_IP: '' }]) {
    t.match(findHostNetworkProblem(TCP, { env, interfaces }), { hint: /status\.hostIP/ })
  }
  t.match(findHostNetworkProblem(TCP, { env: { HOST_IP: 'node-1' }, interfaces }), {
    path: 'HOST_IP',
  })
  t.equal(findHostNetworkProblem(TCP, { env: {}, interfaces }), undefined)
})
