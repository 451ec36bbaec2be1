/** The routes of session hosting at the gateway: one closed list, matched as a whole. */

/** What a session host does at the gateway besides its own stream. */
export type HostingRoute = 'worker' | 'bundle' | 'manifest' | 'pack' | 'blob' | 'reconciliation'

/** Bounds everything that is matched, in characters. */
const TARGET_LENGTH_MAX = 512

/** As in `worker%3A5f2c…`: the gateway encodes the colon, and nothing else in it needs encoding. */
const ENVIRONMENT = '[A-Za-z0-9_-]{1,128}(?:%3A[A-Za-z0-9_-]{1,128})?'
const SHA256 = '[0-9a-f]{64}'
const TRANSFER = `/__openclaw__/worker-transfer/v1/environments/${ENVIRONMENT}`
const SNAPSHOT = `${TRANSFER}/snapshots/${SHA256}`

type Entry = { readonly method: string; readonly target: RegExp; readonly isUpgrade: boolean }

const entry = (method: string, pattern: string, isUpgrade = false): Entry => ({
  method,
  target: new RegExp(`^${pattern}$`),
  isUpgrade,
})

const ROUTES: Readonly<Record<HostingRoute, Entry>> = {
  worker: entry('GET', '/__openclaw__/worker', true),
  bundle: entry('GET', `/__openclaw__/worker-bundle/v1/bundles/${SHA256}`),
  manifest: entry('GET', `${SNAPSHOT}/manifest`),
  pack: entry('GET', `${SNAPSHOT}/pack`),
  blob: entry('GET', `${TRANSFER}/blobs/${SHA256}`),
  reconciliation: entry('POST', `${TRANSFER}/reconciliations/${SHA256}`),
}

export const HOSTING_ROUTES: readonly string[] = Object.keys(ROUTES)

export type RequestLine = {
  readonly method: string | undefined
  /** The request target as it came, query included. */
  readonly target: string | undefined
  readonly isUpgrade: boolean
}

/**
 * The route that a request asks for, or `undefined`. There is no query, no escape but `%3A` in the
 * id of an environment, and no match of a prefix: two servers must not read two paths in one.
 */
export const findHostingRoute = (line: RequestLine): HostingRoute | undefined => {
  const { method, target = '', isUpgrade } = line
  if (target.length > TARGET_LENGTH_MAX) return undefined
  const found = Object.entries(ROUTES).find(
    ([, route]) =>
      route.method === method && route.isUpgrade === isUpgrade && route.target.test(target),
  )
  return found?.[0] as HostingRoute | undefined
}
