/** What one OpenClaw gateway spends on a node's handshake and on a call, without any sidecar. */

// The yardstick for what a sidecar may cost. Needs the product that `npm run test:openclaw` installs;
// takes it straight over loopback, as a proxy in its pod would.

import { findFreePort } from '../kit/free-port.ts'
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { GATEWAY_SECRET, startGateway } from '../openclaw/gateway.ts'
import { connectLightNode, createDevice } from '../kit/light-node.ts'
import { isInstalled, PINNED } from '../openclaw/product.ts'

const HANDSHAKES = 100
const CALLS = 400
const CALLS_AT_ONCE = 8
const WARM_UP = 20
const SETTLE_MS = 3000
const TICKS_A_SECOND = 100

/** CPU seconds of every process whose environment names this home: the gateway and what it started. */
const cpuSecondsOf = (home: string): number =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .reduce((sum, pid) => sum + cpuSecondsIfIn(pid, home), 0)

const cpuSecondsIfIn = (pid: string, home: string): number => {
  try {
    if (!readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`HOME=${home}\0`)) return 0
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND
  } catch {
    // It has ended, or belongs to another user.
    return 0
  }
}

const measure = async (): Promise<void> => {
  const home = await mkdtemp(join(tmpdir(), 'openclaw-cost-'))
  const gateway = await startGateway({ mode: 'token', port: await findFreePort(), home, users: [] })
  const operator = await gateway.connectOperator()
  const device = createDevice()
  const connect = (auth: Readonly<Record<string, string>>) =>
    connectLightNode({
      url: gateway.url,
      localAddress: '127.0.0.1',
      device,
      auth,
      headers: { 'x-forwarded-for': '10.244.1.1', 'x-forwarded-proto': 'http' },
    })
  const setup = await operator.call<{ setupCode: string }>('device.pair.setupCode', {
    publicUrl: gateway.url,
    includeQr: false,
    bootstrapProfile: 'node',
  })
  const code = Buffer.from(setup.setupCode, 'base64url').toString()
  const { bootstrapToken } = JSON.parse(code) as { bootstrapToken: string }
  const first = await connect({ bootstrapToken })
  first.end()
  await first.closed

  const spent = async (what: string, times: number, run: () => Promise<void>): Promise<void> => {
    await sleep(SETTLE_MS)
    const before = cpuSecondsOf(home)
    const startedAt = performance.now()
    await run()
    const seconds = (performance.now() - startedAt) / 1000
    const cpuMs = ((cpuSecondsOf(home) - before) * 1000) / times
    process.stdout.write(
      `${what}: ${cpuMs.toFixed(1)} ms of the gateway's CPU each, ${(times / seconds).toFixed(0)} a second\n`,
    )
  }
  const handshakes = async (times: number): Promise<void> => {
    for (let n = 0; n < times; n += 1) {
      const node = await connect({ token: GATEWAY_SECRET })
      node.end()
      await node.closed
    }
  }
  await spent('at rest for 5 s', 1, () => sleep(5000))
  await handshakes(WARM_UP)
  await spent(`handshake of a known node (${HANDSHAKES})`, HANDSHAKES, () => handshakes(HANDSHAKES))

  const node = await connect({ token: GATEWAY_SECRET })
  const calls = async (times: number): Promise<void> => {
    let next = 0
    const work = async (): Promise<void> => {
      while (next++ < times) await operator.invoke(device.id, 'system.which', { bins: ['uname'] })
    }
    await Promise.all(Array.from({ length: CALLS_AT_ONCE }, work))
  }
  await calls(WARM_UP)
  await spent(`call of a node, ${CALLS_AT_ONCE} at once (${CALLS})`, CALLS, () => calls(CALLS))
  node.end()
  await operator.close()
  await gateway.stop()
  await rm(home, { recursive: true })
}

if (isInstalled(PINNED)) await measure()
else process.stdout.write('The product is not installed: run npm run test:openclaw once.\n')
