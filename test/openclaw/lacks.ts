/** What the versions of a run lack: asked of the products themselves, not guessed from a number. */

import { readFileSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { createDevice, openLightNode } from '../kit/light-node.ts'
import type { Operator } from './operator.ts'
import { hasText, type Product } from './product.ts'
import type { SuiteRun } from './suite-plan.ts'

/** A reason where something is missing, in the product's own words where it has some. */
export type Lacks = {
  /** The gateway mints bootstrap tokens that let a node in. */
  readonly bootstrapToken: string | undefined
  /** The gateway takes nodes of protocol 3. */
  readonly protocol3: string | undefined
  /** The gateway gives a wider surface to a node that is connected. */
  readonly liveSurface: string | undefined
  /** The node sends `CF_ACCESS_CLIENT_ID` and its secret as headers. */
  readonly accessHeaders: string | undefined
  /** The gateway places sessions on nodes, the node hosts them, and the suite has a user for it. */
  readonly sessionHosting: string | undefined
  /** The gateway refuses forwarded headers of a proxy that it does not trust. */
  readonly proxyAttribution: string | undefined
}

export type Questioned = {
  readonly gatewayUrl: string
  readonly operator: Operator
  /** Shown to the gateway as the address of a node; no pod has it. */
  readonly address: string
  readonly gateway: Product
  readonly node: Product
}

export const findLacks = async (questioned: Questioned): Promise<Lacks> => ({
  bootstrapToken: await whyNoBootstrapToken(questioned),
  protocol3: await whyNoProtocol3(questioned),
  liveSurface: whyNoLiveSurface(questioned.gateway),
  accessHeaders: whyNoAccessHeaders(questioned.node),
  sessionHosting: whyNoSessionHosting(questioned),
  proxyAttribution: whyNoProxyAttribution(questioned.gateway),
})

/** The sidecar shows the gateway's password on loopback, without the headers of a proxy. */
export const whyNoMode = ({ gateway, mode }: SuiteRun): string | undefined =>
  mode !== 'trusted-proxy' || hasText(gateway, 'resolveGatewayAuthRequestContext')
    ? undefined
    : `a gateway of ${gateway.version} in trusted-proxy mode takes no password from a direct client`

/** Whether a version has the routes that hosted sessions use. */
export const hasSessionHosting = (product: Product): boolean =>
  hasText(product, '/__openclaw__/worker-transfer')

const whyNoSessionHosting = ({ gateway, node }: Questioned) => {
  const without = [gateway, node].find((product) => !hasSessionHosting(product))
  if (without !== undefined) return `${without.version} has no session hosting`
  // A user namespace has one user, and a hosting node must not be root.
  const isAlone = readFileSync('/proc/self/uid_map', 'utf8').trim().endsWith(' 1')
  if (isAlone) return 'a hosting node needs another user: run the suite as root'
  const closed = foldersOf(node.entry).find(
    (folder) => (statSync(folder).mode & OTHERS_ENTER) === 0,
  )
  if (closed === undefined) return undefined
  return `a hosting node runs as another user, who may not enter ${closed}: set OPENCLAW_VERSIONS_DIR`
}

const OTHERS_ENTER = 0o001

const foldersOf = (path: string): readonly string[] => {
  const folder = dirname(path)
  return folder === path ? [] : [...foldersOf(folder), folder]
}

const whyNoProxyAttribution = (gateway: Product) =>
  hasText(gateway, 'proxy_attribution_required')
    ? undefined
    : `a gateway of ${gateway.version} does not refuse a proxy that it does not trust`

const whyNoBootstrapToken = async ({ operator, gatewayUrl }: Questioned) => {
  const wanted = { publicUrl: gatewayUrl, includeQr: false, bootstrapProfile: 'node' }
  try {
    await operator.call('device.pair.setupCode', wanted)
    return undefined
  } catch (error) {
    return `the gateway mints no bootstrap token for nodes (${messageOf(error)})`
  }
}

/** Whether a node of this version runs no command by default that its owner has not listed or approved. */
export const asksBeforeItRuns = (node: Product): boolean =>
  hasText(node, 'value === "full" ? value : "allowlist"')

const whyNoLiveSurface = (gateway: Product) =>
  hasText(gateway, 'nodeRegistry.updateSurface(')
    ? undefined
    : `a gateway of ${gateway.version} applies a wider surface at the next connection`

/** A proof that cannot hold: whatever the gateway thinks of the protocol, no request to pair stays behind. */
const whyNoProtocol3 = async ({ gatewayUrl, address }: Questioned) => {
  const node = await openLightNode({
    url: gatewayUrl,
    localAddress: '127.0.0.1',
    headers: { 'x-forwarded-for': address, 'x-forwarded-proto': 'http' },
    device: createDevice(),
  })
  const { nonce, ts } = node.challenge
  const answer = await node.connect({
    protocols: [3, 3],
    proof: { nonce, signedAt: ts, signature: Buffer.alloc(64).toString('base64url') },
  })
  node.end()
  const { message = '', details } = answer?.error ?? {}
  const isMismatch =
    details?.['code'] === 'PROTOCOL_MISMATCH' || /protocol mismatch/iu.test(message)
  return isMismatch ? `the gateway takes no node of protocol 3 (${message})` : undefined
}

const whyNoAccessHeaders = (node: Product) =>
  hasText(node, 'CF_ACCESS_CLIENT_ID')
    ? undefined
    : `a node of ${node.version} does not know CF_ACCESS_CLIENT_ID`

const messageOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).trim()
