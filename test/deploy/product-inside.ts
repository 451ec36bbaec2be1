/** Inside its network namespace: brings the API server in, and runs `product.test.ts`. */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readKubeconfig } from '../cluster/kubeconfig.ts'
import { runSuites } from '../kit/suite-run.ts'
import { raisePods } from '../kit/namespace.ts'
import { findTool } from './tools.ts'

const [namespace = ''] = process.argv.splice(2)
process.env['OPENCLAW_SUITE_NAMESPACE'] = namespace

const kubectl = findTool('kubectl')
if ('why' in kubectl) throw new Error(kubectl.why)
// Whole, since what it names may lie under the /tmp that is about to be hidden.
const kubeconfig = execFileSync(kubectl.path, ['config', 'view', '--raw', '--flatten', '--minify'])
raisePods()
const file = join(mkdtempSync(join(tmpdir(), 'kubeconfig-')), 'kubeconfig')
writeFileSync(file, kubeconfig, { mode: 0o600 })
process.env['KUBECONFIG'] = file

/** Connections from here that wait for theirs from outside. */
const waiting = new Map<number, Socket>()
let asked = 0
process.on('message', (message, handle) => {
  const { connection } = message as { readonly connection: number }
  const here = waiting.get(connection)
  waiting.delete(connection)
  const there = handle as Socket | undefined
  if (here === undefined || there === undefined) {
    here?.destroy()
    there?.destroy()
    return
  }
  here.pipe(there).pipe(here)
  // The runner waits for what is still open; who uses a connection holds it by its own end.
  here.unref()
  there.unref()
  here.on('error', () => there.destroy())
  there.on('error', () => here.destroy())
})
const { hostname, port } = readKubeconfig(file).server
const relay = createServer((socket) => {
  asked += 1
  waiting.set(asked, socket)
  process.send?.({ connection: asked })
})
relay.listen(Number(port), hostname)
relay.unref()

const totals = await runSuites({
  directory: import.meta.dirname,
  suites: ['product'],
  testLimitMs: 3 * 60_000,
  runLimitMs: 7 * 60_000,
})
await new Promise((resolve) => process.send?.(totals, resolve))
// What a test left open must not keep the namespace: its end is the end of everything in it.
process.exit()
