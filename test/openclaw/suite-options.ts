/** The command line of the suite: which versions, modes and tests. */

import { parseArgs } from 'node:util'
import type { GatewayMode } from './gateway.ts'
import { isVersion } from './install.ts'
import { PINNED } from './product.ts'

export type SuiteOptions = {
  /** Versions of the gateway, each run with the same version of the nodes. */
  readonly gateways: readonly string[]
  readonly node: string
  readonly modes: readonly GatewayMode[]
  /** Only tests whose name matches. */
  readonly only: string | undefined
  /** Whether the run writes its section of the compatibility page: only a whole run does. */
  readonly writesPage: boolean
}

export const USAGE = `Usage: npm run test:openclaw [-- OPTIONS]

  --openclaw VERSION[,VERSION…]  versions of the gateway; default ${PINNED.version}
  --node VERSION                 version of the nodes; default ${PINNED.version}
  --mode MODE                    token or trusted-proxy; default both, one behind the other
  --only PATTERN                 only tests whose name matches
  --no-page                      leave docs/compatibility.md as it is
`

const MODES: readonly GatewayMode[] = ['token', 'trusted-proxy']
/** Each one takes minutes. */
const VERSIONS_MAX = 20

/** The options, or what is wrong with them. */
export const parseOptions = (
  args: readonly string[],
): SuiteOptions | { readonly problem: string } => {
  try {
    return readOptions(args)
  } catch (error) {
    return { problem: error instanceof Error ? error.message : String(error) }
  }
}

const readOptions = (args: readonly string[]): SuiteOptions => {
  const { values } = parseArgs({
    args: [...args],
    allowNegative: true,
    options: {
      openclaw: { type: 'string', multiple: true, default: [PINNED.version] },
      node: { type: 'string', default: PINNED.version },
      mode: { type: 'string', multiple: true, default: MODES.slice() },
      only: { type: 'string' },
      page: { type: 'boolean', default: true },
    },
  })
  const gateways = [...new Set(values.openclaw.flatMap((list) => list.split(',')))]
  if (gateways.length > VERSIONS_MAX) throw new Error(`at most ${VERSIONS_MAX} versions`)
  const wrong = [...gateways, values.node].find((version) => !isVersion(version))
  if (wrong !== undefined) throw new Error(`not a version such as ${PINNED.version}: ${wrong}`)
  const modes = MODES.filter((mode) => values.mode.includes(mode))
  const strange = values.mode.find((mode) => !MODES.some((known) => known === mode))
  if (strange !== undefined) throw new Error(`no such mode: ${strange}`)
  const { node, only, page } = values
  return { gateways, node, modes, only, writesPage: page && only === undefined }
}
