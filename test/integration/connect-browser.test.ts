/** A page in a real browser of the pod gets nothing from `connect`, whatever it tries. */

import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import { connect as connectTcp, createServer as createTcpServer, type AddressInfo } from 'node:net'
import { readFileSync } from 'node:fs'
import { test } from 'tap'
import { findChromium, openChromium } from '../kit/chromium.ts'
import { startConnectRig } from '../kit/connect-rig.ts'
import { waitForProcess } from '../kit/wait.ts'

const PAGE = readFileSync(new URL('../kit/connect-page.html', import.meta.url), 'utf8')
const PAGE_MS_MAX = 60_000
const HASH = '0123456789abcdef'.repeat(4)
/** A name of the attacker's that points to loopback: DNS rebinding. */
const REBOUND = 'rebound.example'

type Tried = Readonly<Record<string, string>>

const program = findChromium()
const skip = program === undefined ? 'there is no Chromium on this machine' : false

test('a page in a real browser gets nothing', { skip, timeout: 2 * PAGE_MS_MAX }, async (t) => {
  const rig = await startConnectRig(t, { sessionHosting: true })
  const seen: Seen[] = []
  const watched = await watch(rig.port, (each) => seen.push(each))
  t.teardown(() => watched.close())

  const { promise: told, resolve: tell } = Promise.withResolvers<Tried>()
  const page = createServer((request, response) => {
    if (request.method === 'POST') {
      void read(request).then((text) => tell(JSON.parse(text) as Tried))
      response.end()
      return
    }
    response.setHeader('Content-Type', 'text/html')
    response.end(
      PAGE.replaceAll('{{port}}', String(watched.port))
        .replaceAll('{{rebound}}', REBOUND)
        .replaceAll('{{hash}}', HASH),
    )
  })
  await once(page.listen(0, '127.0.0.1'), 'listening')
  const { port } = page.address() as AddressInfo
  t.teardown(() => {
    page.closeAllConnections()
    page.close()
  })
  const browser = openChromium({
    program: program ?? '',
    url: `http://127.0.0.1:${port}/`,
    resolve: `MAP ${REBOUND} 127.0.0.1`,
  })
  t.teardown(() => browser.close())

  let tried: Tried | undefined
  void told.then((known) => (tried = known))
  await waitForProcess('the page has tried everything', PAGE_MS_MAX, () => tried).catch((error) => {
    throw new Error(browser.said(), { cause: error })
  })
  t.ok(Object.keys(tried ?? {}).length > 10)
  for (const [name, outcome] of Object.entries(tried ?? {})) t.match(outcome, /^refused/, name)
  t.strictSame(rig.requests, [], 'nothing reached the sidecar')
  t.equal(rig.upstreamSockets.size, 0)

  // The browser did not stop these by itself: the port refused them.
  const reached = (line: RegExp, fits: (each: Seen) => boolean) =>
    t.ok(
      seen.some((each) => line.test(each.line) && fits(each)),
      String(line),
    )
  reached(/^GET \/ /, ({ isUpgrade, origin }) => isUpgrade && origin !== '')
  reached(/^GET \/__openclaw__\/worker /, ({ isUpgrade, origin }) => isUpgrade && origin !== '')
  reached(/^GET \/ /, ({ isUpgrade, host }) => isUpgrade && host.startsWith(REBOUND))
  reached(/^GET \/__openclaw__\/worker-bundle/, ({ origin }) => origin === '')
  reached(/^OPTIONS /, ({ origin }) => origin !== '')
  reached(/^POST /, ({ origin }) => origin !== '')
  t.ok((await rig.upgrade()).status === 101, 'a worker still enters')
})

/** The head of a request as the browser sent it. */
type Seen = {
  readonly line: string
  readonly host: string
  readonly origin: string
  readonly isUpgrade: boolean
}

/** A port that passes every byte on to `port`, and shows the heads of the requests. */
const watch = async (port: number, onSeen: (seen: Seen) => void) => {
  const server = createTcpServer((socket) => {
    const onward = connectTcp({ port, host: '127.0.0.1' })
    socket.once('data', (chunk: Buffer) => {
      const head = String(chunk)
      const of = (name: string) => new RegExp(`^${name}: (.*)\r$`, 'im').exec(head)?.[1] ?? ''
      const [line = ''] = head.split('\r\n')
      onSeen({ line, host: of('Host'), origin: of('Origin'), isUpgrade: of('Upgrade') !== '' })
    })
    for (const [from, to] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      from.on('error', () => to.destroy()).once('close', () => to.destroySoon())
      from.pipe(to)
    }
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return { port: (server.address() as AddressInfo).port, close: () => server.close() }
}

const read = async (request: IncomingMessage): Promise<string> => {
  let text = ''
  for await (const chunk of request) text += String(chunk)
  return text
}
