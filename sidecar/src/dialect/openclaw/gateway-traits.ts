/** What the gateway has shown of itself: how it enrolls nodes, and which fields it does not know. */

import { MODEL_CATALOG, NODE_PROTOCOL_MIN } from './frames.ts'

/**
 * The members of a `connect` that a gateway of another age may not know, as paths. The device proof
 * covers none of them, and leaving one out gives a node less, never more.
 */
const OPTIONAL_FIELDS = [
  'client.buildId',
  'client.modelIdentifier',
  'client.timeZone',
  'computerUse',
  'locale',
  'modelCatalog',
  'pathEnv',
  'permissions',
  'userAgent',
  'workerRuns',
] as const

export type OptionalField = (typeof OPTIONAL_FIELDS)[number]

const UNEXPECTED_PREFIX = /^(?:invalid connect params: )?/u
/** As in `at root: unexpected property 'a'; at /client: unexpected property 'b'`. */
const UNEXPECTED = /(?:; )?at (root|\/client): unexpected property '([A-Za-z]{1,64})'(?=; |$)/uy
const UNKNOWN_METHOD = 'unknown method'
const UNEXPECTED_PROPERTY = 'unexpected property'

/**
 * Learned from the gateway's own answers, never from its version, and forgotten when the operator
 * channel comes up again: another gateway may answer then.
 */
export class GatewayTraits {
  #hasBootstrap = true
  #hasSurfaceRequests = true
  #protocolMin = NODE_PROTOCOL_MIN
  #capabilities: readonly string[] = []
  readonly #unknownFields = new Set<OptionalField>()

  /** Whether a bootstrap token for a node may be asked for. */
  get hasBootstrap(): boolean {
    return this.#hasBootstrap
  }

  /** Whether an operator may ask for the approval of a surface before its node connects. */
  get hasSurfaceRequests(): boolean {
    return this.#hasSurfaceRequests
  }

  /** The oldest protocol that the gateway takes from a node. */
  get protocolMin(): number {
    return this.#protocolMin
  }

  /** What the challenge for a worker may announce. */
  get capabilities(): readonly string[] {
    return this.#capabilities
  }

  get unknownFields(): ReadonlySet<OptionalField> {
    return this.#unknownFields
  }

  /** `capabilities` are those of the gateway's challenge on the new operator connection. */
  reset(capabilities: readonly string[] = []): void {
    this.#hasBootstrap = true
    this.#hasSurfaceRequests = true
    this.#protocolMin = NODE_PROTOCOL_MIN
    this.#capabilities = capabilities.filter((name) => name === MODEL_CATALOG)
    this.#unknownFields.clear()
  }

  /**
   * Whether the gateway refused a bootstrap token because it does not know it for nodes. It is not
   * asked again then.
   */
  learnBootstrap(refusal: string): boolean {
    if (!isUnknown(refusal)) return false
    this.#hasBootstrap = false
    return true
  }

  /** The same for the request of a surface. */
  learnSurfaceRequests(refusal: string): boolean {
    if (!isUnknown(refusal)) return false
    this.#hasSurfaceRequests = false
    return true
  }

  /** The gateway refused a node's protocol. */
  learnProtocolMin(protocol: number): void {
    this.#protocolMin = Math.max(this.#protocolMin, protocol)
  }

  /**
   * Whether the refusal of a `connect` names a field that can be left out. Another admission may
   * have learned the same field a moment before: that is worth another try as well.
   */
  learnFields(refusal: string): boolean {
    const named = readUnexpected(refusal)
    const fields = OPTIONAL_FIELDS.filter((field) => named.includes(field))
    for (const field of fields) this.#unknownFields.add(field)
    return fields.length > 0
  }
}

/**
 * Only what stands in front of any other complaint: the gateway repeats names that a worker has chosen
 * inside its own fields, and such a name could read like another complaint.
 */
function readUnexpected(refusal: string): readonly string[] {
  const named: string[] = []
  UNEXPECTED.lastIndex = UNEXPECTED_PREFIX.exec(refusal)?.[0].length ?? 0
  for (let match = UNEXPECTED.exec(refusal); match !== null; match = UNEXPECTED.exec(refusal)) {
    const [, at, name = ''] = match
    named.push(at === 'root' ? name : `client.${name}`)
  }
  return named
}

const isUnknown = (refusal: string): boolean =>
  refusal.includes(UNKNOWN_METHOD) || refusal.includes(UNEXPECTED_PROPERTY)
