/** Where a port opens: where it is told to, with one server, and on IPv4 where there is no IPv6. */

import { test } from 'tap'
import { isWithoutIpv6, listenOn } from '@openclaw-k8s/auth-sidecar/edge/fastify.ts'

type App = Parameters<typeof listenOn>[0]
type Asked = { readonly host: string; readonly port: number; readonly backlog?: number }

/** A server that listens anywhere but where it fails. */
const serverThat = (failsAt: Readonly<Record<string, string>> = {}) => {
  const asked: Asked[] = []
  const listen = async (where: Asked) => {
    asked.push(where)
    const code = failsAt[where.host]
    if (code !== undefined) throw Object.assign(new Error(code), { code })
  }
  const address = () => ({ address: asked.at(-1)?.host, port: 7 })
  return { asked, app: { listen, server: { address } } as unknown as App }
}

test('without IPv6 every address is every IPv4 address, on the same port', async (t) => {
  for (const code of ['EAFNOSUPPORT', 'EADDRNOTAVAIL']) {
    const { app, asked } = serverThat({ '::': code })
    const bound = await listenOn(app, { host: '::', port: 7, backlog: 9 })
    t.equal(bound, '0.0.0.0:7', code)
    t.strictSame(asked.at(-1), { host: '0.0.0.0', port: 7, backlog: 9 })
    t.equal(isWithoutIpv6('::', bound), true)
  }
})

test('any other failure stands, and so does an address that is written out', async (t) => {
  const cases = [
    ['::', 'EADDRINUSE'],
    ['::', 'EACCES'],
    ['::1', 'EADDRNOTAVAIL'],
    ['fd00::1', 'EAFNOSUPPORT'],
    ['0.0.0.0', 'EADDRNOTAVAIL'],
  ] as const
  for (const [host, code] of cases) {
    const { app, asked } = serverThat({ [host]: code })
    await t.rejects(listenOn(app, { host, port: 7 }), { code }, `${host} ${code}`)
    t.equal(asked.length, 1, 'it is not tried elsewhere')
  }
  const { app } = serverThat()
  t.equal(await listenOn(app, { host: '::', port: 7 }), '[::]:7')
  t.equal(isWithoutIpv6('::', '[::]:7'), false)
  t.equal(isWithoutIpv6('0.0.0.0', '0.0.0.0:7'), false, 'it was asked for')
})

test('a port on localhost has one server', async (t) => {
  const { app, asked } = serverThat()
  t.equal(await listenOn(app, { host: 'localhost', port: 7 }), '127.0.0.1:7')
  t.strictSame(
    asked.map(({ host }) => host),
    ['127.0.0.1'],
  )
})
