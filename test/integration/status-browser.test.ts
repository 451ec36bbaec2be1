/** The status page in a real browser: live, and no name becomes markup or script. */

import { test, type Test } from 'tap'
import type { Status } from '@openclaw-k8s/auth-sidecar/edge/status.ts'
import { startAdminRig } from '../kit/admin-rig.ts'
import { findChromium, openChromium } from '../kit/chromium.ts'
import { attachPage } from '../kit/devtools.ts'
import { startRig } from '../kit/rig.ts'
import { withNames } from '../kit/status-sample.ts'
import { waitForProcess } from '../kit/wait.ts'

const SHOWN_MS_MAX = 30_000
const MARKUP = '<img src=x onerror="document.title=1">'
const TURNED = 'a\u202eevil\u001b[31m'

const program = findChromium()
const skip = program === undefined ? 'there is no Chromium on this machine' : false
const options = { skip, timeout: 4 * SHOWN_MS_MAX }

const openPage = async (t: Test, url: string) => {
  const browser = openChromium({ program: program ?? '', url: 'about:blank', resolve: '' })
  t.teardown(() => browser.close())
  const page = await attachPage(browser)
  t.teardown(() => page.close())
  for (const domain of ['Runtime', 'Log', 'Page']) await page.call(`${domain}.enable`)
  await page.call('Page.navigate', { url })
  const textOf = (selector: string) =>
    page.evaluate<string>(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? ''`)
  const shown = (selector: string, text: RegExp) =>
    waitForProcess(`${selector} ${text}`, SHOWN_MS_MAX, async () =>
      text.test(await textOf(selector)),
    )
  return { page, textOf, shown }
}

test('a browser sees a stream arrive and go, who is refused, and a loss', options, async (t) => {
  const rig = await startRig()
  t.teardown(() => rig.stop())
  const { page, textOf, shown } = await openPage(t, `${rig.adminUrl}/`)
  await shown('#verdict', /^Ready$/)
  t.match(await textOf('#checks'), /serving\s+jwks\s+pods\s+gateway/)
  t.equal(await textOf('#streams-empty'), 'No worker is connected.')
  t.equal(await textOf('#refusals-empty'), 'Nobody was refused.')

  const pod = rig.createPod('worker-a', '127.0.0.11')
  const worker = await rig.connect({ token: rig.mint({ pod }) })
  if (!worker.ok) throw new Error('refused')
  await shown('#streams tbody', /openclaw\/worker-a[^]*openclaw-worker[^]*node-1/)
  t.equal(await textOf('#streams-note'), '1 open, of 1 pod')
  const stranger = await rig.connect({ token: rig.mint({ pod, audiences: ['another'] }) })
  t.notOk(stranger.ok)
  await shown('#refusals tbody', /audience_mismatch[^]*openclaw\/worker-a[^]*unproven/)

  worker.socket.terminate()
  await shown('#streams-empty', /^No worker/)
  t.strictSame(page.events('Runtime.exceptionThrown'), [])
  await rig.sidecar.stop()
  await shown('#link', /^not connected/)
})

test('a name of any kind is text, and nothing in the page becomes markup', options, async (t) => {
  let status: Status = withNames(MARKUP)
  const rig = await startAdminRig({ status: { read: async () => status, objection: undefined } })
  t.teardown(() => rig.close())
  const { page, textOf, shown } = await openPage(t, `${rig.url}/`)
  await shown('#link', /^live$/)
  for (const selector of ['#streams tbody', '#refusals tbody', '#checks', '#cluster']) {
    t.match(await textOf(selector), MARKUP, selector)
  }
  t.match(await page.evaluate('document.title'), /^Not ready/)
  t.equal(await page.evaluate("document.querySelectorAll('img, script:not([src])').length"), 0)

  status = withNames(TURNED)
  rig.clock.advance(1000)
  await shown('#refusals tbody', /evil/)
  const directions = await page.evaluate<readonly string[]>(
    "[...document.querySelectorAll('td span, dt, dd')].map((e) => getComputedStyle(e).unicodeBidi)",
  )
  t.ok(directions.length > 0 && directions.every((each) => each === 'isolate'))

  // What a script could try, if one got in.
  const tries = {
    markup: "document.body.innerHTML = '<b>x</b>'",
    code: "eval('1')",
    handler: "document.body.setAttribute('onclick', 'document.title = 1')",
    inline:
      "document.body.append(Object.assign(document.createElement('script'), { text: 'document.title = 1' }))",
  }
  for (const [name, code] of Object.entries(tries)) {
    const outcome = await page.evaluate<string>(
      `(() => { try { ${code}; return 'done' } catch (error) { return error.name } })()`,
    )
    t.match(outcome, /^(TypeError|EvalError)$/, name)
  }
  t.match(await page.evaluate('document.title'), /^Not ready/)
})
