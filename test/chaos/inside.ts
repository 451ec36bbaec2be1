/** In the namespace of the run: plays the scenarios and tells its parent of each. */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { startClusterRig } from '../cluster/cluster-rig.ts'
import { raisePods } from '../kit/namespace.ts'
import { joinSockets } from './bridge.ts'
import { play } from './play.ts'
import { tell } from './played.ts'
import { startResolver } from './resolver.ts'
import { drawScenario, describeScenario } from './schedule.ts'
import { API_NAME, type ApiServerAct, type Ground } from './world.ts'

const RESOLVER = '127.0.0.53'

const { values } = parseArgs({
  options: {
    directory: { type: 'string', default: '' },
    bridge: { type: 'string', default: '' },
    'bridge-port': { type: 'string', default: '' },
    seed: { type: 'string', default: '' },
    scenarios: { type: 'string', default: '' },
    minutes: { type: 'string', default: '' },
    'at-least': { type: 'string', default: '' },
  },
})
const { directory } = values

/** The API server's own loopback is that of the machine: a socket file leads there. */
const startBridge = async (): Promise<void> => {
  const server = createServer({ noDelay: true }, (near) =>
    joinSockets(near, connect(values.bridge)),
  )
  server.listen(Number(values['bridge-port']), '127.0.0.1')
  await once(server, 'listening')
}

const useResolver = (): void => {
  const file = join(directory, 'resolv.conf')
  writeFileSync(file, `nameserver ${RESOLVER}\noptions timeout:2 attempts:2\n`)
  execFileSync('mount', ['--bind', file, '/etc/resolv.conf'])
}

let asked = 0
const apiServer = async (act: ApiServerAct): Promise<void> => {
  asked += 1
  const id = asked
  const done = new Promise<void>((resolve) => {
    const take = (message: unknown) => {
      if ((message as { done?: number }).done !== id) return
      process.off('message', take)
      resolve()
    }
    process.on('message', take)
  })
  process.send?.({ act, id })
  await done
}

raisePods([directory])
useResolver()
await startBridge()
const resolver = await startResolver(RESOLVER, API_NAME, '127.0.0.1')
const cluster = await startClusterRig()
const ground: Ground = {
  cluster,
  resolver,
  apiServer,
  directory,
  main: join(directory, 'auth-sidecar'),
}

const [first, scenarios] = [Number(values.seed), Number(values.scenarios)]
const untilMs = performance.now() + Number(values.minutes) * 60_000
const totals = { passed: 0, failed: 0, skipped: 0 }
const isOver = (seed: number): boolean =>
  seed >= first + scenarios ||
  (performance.now() >= untilMs && seed >= first + Number(values['at-least']))
for (let seed = first; !isOver(seed); seed += 1) {
  const scenario = drawScenario(seed)
  const played = await play(scenario, ground)
  tell(played, describeScenario(scenario), totals)
}
await cluster.close()
await new Promise((resolve) => process.send?.(totals, resolve))
process.exit(totals.failed === 0 ? 0 : 1)
