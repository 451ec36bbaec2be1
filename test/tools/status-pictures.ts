/** Takes the pictures of the status page in `docs/`: the page as served, in a real Chromium, with a sample. */

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Status } from '@openclaw-k8s/auth-sidecar/edge/status.ts'
import { systemClock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { startAdminRig } from '../kit/admin-rig.ts'
import { findChromium, openChromium } from '../kit/chromium.ts'
import { attachPage, type Page } from '../kit/devtools.ts'
import { READY_STATUS, UNREADY_STATUS } from '../kit/status-sample.ts'
import { waitForProcess } from '../kit/wait.ts'

const DOCS = join(import.meta.dirname, '../../docs')
const SHOWN_MS_MAX = 10_000
/** In CSS pixels; a phone has more device pixels for each. */
const PHONE = { width: 390, height: 844, deviceScaleFactor: 1.5, mobile: true }
const DESK = { width: 1280, height: 720, deviceScaleFactor: 1, mobile: false }

type Picture = {
  readonly name: string
  readonly scheme: 'light' | 'dark'
  readonly size: typeof PHONE
  readonly status: Status
}

const PICTURES: readonly Picture[] = [
  { name: 'status-light-390', scheme: 'light', size: PHONE, status: READY_STATUS },
  { name: 'status-dark-390', scheme: 'dark', size: PHONE, status: READY_STATUS },
  { name: 'status-light-1280', scheme: 'light', size: DESK, status: READY_STATUS },
  { name: 'status-dark-1280', scheme: 'dark', size: DESK, status: READY_STATUS },
  { name: 'status-not-ready-1280', scheme: 'light', size: DESK, status: UNREADY_STATUS },
]

const program = findChromium()
if (program === undefined) throw new Error('there is no Chromium on the PATH')
let shown: Status = READY_STATUS
const { url, close } = await startAdminRig({
  clock: systemClock,
  status: { read: async () => shown, objection: undefined },
})
const browser = openChromium({ program, url: 'about:blank', resolve: '' })
try {
  const page = await attachPage(browser)
  await page.call('Emulation.setScrollbarsHidden', { hidden: true })
  for (const picture of PICTURES) await take(page, picture)
  page.close()
} finally {
  await browser.close()
  await close()
}

async function take(page: Page, { name, scheme, size, status }: Picture): Promise<void> {
  shown = status
  await page.call('Emulation.setDeviceMetricsOverride', size)
  await page.call('Emulation.setEmulatedMedia', {
    features: [{ name: 'prefers-color-scheme', value: scheme }],
  })
  await page.call('Page.navigate', { url })
  await waitForProcess('the page', SHOWN_MS_MAX, () =>
    page.evaluate<boolean>("document.querySelector('#link')?.dataset.state === 'live'"),
  )
  const file = join(DOCS, `${name}.png`)
  const png = await page.screenshot()
  await writeFile(file, png)
  process.stdout.write(`${file}: ${png.length} bytes\n`)
}
