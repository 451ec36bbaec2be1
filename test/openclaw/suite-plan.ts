/** One run of the suite: which versions meet, in which auth mode of the gateway. */

import type { GatewayMode } from './gateway.ts'
import { PINNED, type Product } from './product.ts'

export type SuiteRun = {
  readonly mode: GatewayMode
  /** The gateway's version and that of the nodes, which can differ. */
  readonly gateway: Product
  readonly node: Product
}

/** How the run is handed from the process outside the namespace to the tests inside. */
const VARIABLE = 'OPENCLAW_SUITE_RUN'

export const PINNED_RUN: SuiteRun = { mode: 'token', gateway: PINNED, node: PINNED }

export const writeRun = (run: SuiteRun): void => {
  process.env[VARIABLE] = JSON.stringify(run)
}

export const readRun = (): SuiteRun => {
  const text = process.env[VARIABLE]
  return text === undefined ? PINNED_RUN : (JSON.parse(text) as SuiteRun)
}

export const titleOfRun = ({ mode, gateway, node }: SuiteRun): string =>
  `gateway ${gateway.version}, node ${node.version}, ${mode} mode`
