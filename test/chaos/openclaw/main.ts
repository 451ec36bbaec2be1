/** `npm run test:chaos:openclaw`: seeded bad days of the sidecar's bundle between a real OpenClaw gateway and a real node. */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { runInside } from '../../kit/namespace.ts'
import { today } from '../../kit/result-page.ts'
import { prepare } from '../../openclaw/prepare.ts'
import { PINNED } from '../../openclaw/product.ts'
import { rewriteProductPage } from '../page.ts'
import type { Played } from '../played.ts'

const { values } = parseArgs({
  options: {
    scenarios: { type: 'string', default: '10' },
    seed: { type: 'string' },
    page: { type: 'boolean', default: false },
  },
})
const SEED_MAX = 2 ** 31
const PAGE = new URL('../../../docs/reliability.md', import.meta.url)
const BUNDLER = fileURLToPath(new URL('../../../sidecar/bundle.ts', import.meta.url))
const say = (text: string): void => void process.stdout.write(`${text}\n`)

const main = async (): Promise<number> => {
  const prepared = await prepare()
  if ('why' in prepared) {
    say(`skipped: ${prepared.why}`)
    say('0 passed, 0 failed, 1 skipped')
    return 0
  }
  const directory = mkdtempSync(join(tmpdir(), 'sidecar-chaos-'))
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }))
  execFileSync(process.execPath, [BUNDLER, directory])
  const firstSeed = Number(values.seed ?? Math.floor(Math.random() * SEED_MAX))
  say(`OpenClaw ${PINNED.version}, seeds from ${firstSeed} on`)
  const results: Played[] = []
  const inside = runInside(
    prepared.namespace,
    fileURLToPath(new URL('inside.ts', import.meta.url)),
    [
      `--main=${join(directory, 'auth-sidecar')}`,
      `--seed=${firstSeed}`,
      `--scenarios=${values.scenarios}`,
    ],
    (message) => {
      const { played } = message as { readonly played?: Played }
      if (played !== undefined) results.push(played)
      return played !== undefined
    },
  )
  await inside.exited
  const { passed, failed, skipped } = inside.totals() ?? { passed: 0, failed: 1, skipped: 0 }
  if (values.page) {
    const run = { date: today(), version: PINNED.version, firstSeed, played: results }
    await writeFile(PAGE, rewriteProductPage(await readFile(PAGE, 'utf8'), run))
  }
  say(`${passed} passed, ${failed} failed, ${skipped} skipped`)
  return failed === 0 ? 0 : 1
}

process.exitCode = await main()
