/** The sidecar of a storm of nodes: as `serve` runs it, but pods on 127.0.0.0/8 do not count as its own host. */

import { readFileSync } from 'node:fs'
import { systemClock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { systemNetwork } from '@openclaw-k8s/auth-sidecar/lib/network.ts'
import { compose } from '@openclaw-k8s/auth-sidecar/compose.ts'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { createLog } from '@openclaw-k8s/auth-sidecar/observe/log.ts'

const readFile = (path: string): string => readFileSync(path, 'utf8')
const flags = process.argv.slice(2).filter((argument) => argument.includes('='))
const { config } = loadConfig({ env: {}, flags, readFile })
const sidecar = await compose(config, {
  clock: systemClock,
  network: systemNetwork,
  random: Math.random,
  env: {},
  readFile,
  log: createLog(config.log.level, process.stderr),
  writeAudit: (line) => void process.stdout.write(line),
  isLocalAddress: (address) => address === '127.0.0.1',
  version: { version: 'storm' },
})
await sidecar.start()
