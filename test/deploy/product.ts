/** The chart's pods as processes, on the real API server: a part of `npm run test:deploy`. */

import type { ChildProcess } from 'node:child_process'
import { connect } from 'node:net'
import { takeAllAway } from '../kit/leftovers.ts'
import { runInside } from '../kit/namespace.ts'
import { prepare } from '../openclaw/prepare.ts'
import { freshName, openNamespace, startDeployRig } from './deploy-rig.ts'

const LIMIT_MS = 8 * 60_000

const main = async (): Promise<string> => {
  if (!process.env['KUBECONFIG']) return skipped('KUBECONFIG names no API server')
  const prepared = await prepare()
  if ('why' in prepared) return skipped(prepared.why)
  const rig = await startDeployRig()
  if ('why' in rig) return skipped(rig.why)
  const { hostname, port } = rig.config.server
  // From outside, so that it is removed whatever happens to the run inside.
  const namespace = freshName('openclaw-test')
  await openNamespace(rig, namespace)
  /** The loopback inside is another one: connections to the API server are handed in. */
  const handIn = (message: unknown, child: ChildProcess): boolean => {
    const { connection } = message as { readonly connection?: number }
    if (connection === undefined) return false
    const socket = connect(Number(port), hostname)
    socket.once('connect', () => child.send({ connection }, socket))
    socket.once('error', () => child.send({ connection }))
    return true
  }
  const script = new URL('product-inside.ts', import.meta.url).pathname
  const inside = runInside(prepared.namespace, script, [namespace], handIn)
  const timer = setTimeout(inside.kill, LIMIT_MS)
  await inside.exited
  clearTimeout(timer)
  await takeAllAway()
  // A run that ended without its totals is a failure, whatever passed before.
  const { passed, failed, skipped: left } = inside.totals() ?? { passed: 0, failed: 1, skipped: 0 }
  return `${passed} passed, ${failed} failed, ${left} skipped`
}

const skipped = (why: string): string => {
  process.stdout.write(`skip   the chart's pods as processes\n  ${why}\n`)
  return '0 passed, 0 failed, 1 skipped'
}

process.stdout.write(`${await main()}\n`)
