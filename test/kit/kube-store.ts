/** What the embedded API server keeps: pods, ServiceAccounts and the log of their changes. */

export type Resource = 'pods' | 'serviceaccounts'

export type ObjectMeta = {
  readonly name: string
  readonly namespace: string
  readonly uid: string
  readonly resourceVersion: string
  readonly generation?: number
  readonly creationTimestamp: string
  readonly deletionTimestamp?: string
  readonly deletionGracePeriodSeconds?: number
  readonly labels?: Readonly<Record<string, string>>
}

export type Pod = {
  readonly metadata: ObjectMeta
  readonly spec: {
    readonly containers: readonly Readonly<Record<string, unknown>>[]
    readonly restartPolicy: string
    readonly terminationGracePeriodSeconds: number
    readonly serviceAccountName: string
    readonly serviceAccount: string
    readonly nodeName?: string
    readonly hostNetwork?: boolean
  }
  readonly status: {
    readonly phase: string
    readonly hostIP?: string
    readonly podIP?: string
    readonly podIPs?: readonly { readonly ip: string }[]
    readonly startTime?: string
    readonly qosClass?: string
  }
}

export type ServiceAccount = { readonly metadata: ObjectMeta }

export type KubeObject = Pod | ServiceAccount

export type KubeEvent = {
  readonly version: number
  readonly resource: Resource
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly object: KubeObject
  /** The state before, where there was one: selectors compare both. */
  readonly previous: KubeObject | undefined
}

/** The real one keeps five minutes; a watch that is further behind than this must list again. */
const EVENTS_MAX = 20_000
const FIRST_VERSION = 100

export class KubeStore {
  #version = FIRST_VERSION
  #oldest = FIRST_VERSION
  #events: KubeEvent[] = []
  readonly #objects: Readonly<Record<Resource, Map<string, KubeObject>>> = {
    pods: new Map(),
    serviceaccounts: new Map(),
  }
  readonly #listeners = new Set<(event: KubeEvent) => void>()

  /** The version of the last change. */
  get version(): number {
    return this.#version
  }

  /** Changes up to here are forgotten. */
  get oldest(): number {
    return this.#oldest
  }

  pod(namespace: string, name: string): Pod | undefined {
    const found = this.#objects.pods.get(`${namespace}/${name}`)
    return found !== undefined && 'spec' in found ? found : undefined
  }

  serviceAccount(namespace: string, name: string): ServiceAccount | undefined {
    return this.#objects.serviceaccounts.get(`${namespace}/${name}`)
  }

  get(resource: Resource, namespace: string, name: string): KubeObject | undefined {
    return this.#objects[resource].get(`${namespace}/${name}`)
  }

  /** The objects of a namespace in order of their names, as etcd lists them. */
  list(resource: Resource, namespace: string): readonly KubeObject[] {
    return this.#objects[resource]
      .values()
      .filter((object) => object.metadata.namespace === namespace)
      .toArray()
      .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1))
  }

  /** Writes an object and tells the watches. Its resourceVersion is the store's to give. */
  put<T extends KubeObject>(resource: Resource, object: T): T {
    const written = this.#stamp(object)
    const key = keyOf(object)
    const previous = this.#objects[resource].get(key)
    this.#objects[resource].set(key, written)
    this.#log({ resource, type: previous ? 'MODIFIED' : 'ADDED', object: written, previous })
    return written
  }

  remove(resource: Resource, object: KubeObject): void {
    const previous = this.#objects[resource].get(keyOf(object))
    if (previous === undefined) throw new Error(`there is no ${resource} ${keyOf(object)}`)
    this.#objects[resource].delete(keyOf(object))
    this.#log({ resource, type: 'DELETED', object: this.#stamp(previous), previous })
  }

  /** The changes after `version`, or nothing when the log no longer reaches back so far. */
  since(version: number): readonly KubeEvent[] | undefined {
    if (version < this.#oldest) return undefined
    return this.#events.filter((event) => event.version > version)
  }

  subscribe(listener: (event: KubeEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Forgets the log, as a compaction does: every watch from before has to list again. */
  compact(): void {
    // A change that nobody saw makes even the newest version of a client too old.
    this.#version += 1
    this.#oldest = this.#version
    this.#events = []
  }

  #stamp<T extends KubeObject>(object: T): T {
    this.#version += 1
    const metadata = { ...object.metadata, resourceVersion: String(this.#version) }
    return { ...object, metadata }
  }

  #log(change: Omit<KubeEvent, 'version'>): void {
    const event = { ...change, version: this.#version }
    this.#events.push(event)
    if (this.#events.length > EVENTS_MAX) {
      const dropped = this.#events.splice(0, EVENTS_MAX / 2)
      this.#oldest = dropped.at(-1)?.version ?? this.#oldest
    }
    for (const listener of this.#listeners) listener(event)
  }
}

const keyOf = (object: KubeObject): string => `${object.metadata.namespace}/${object.metadata.name}`
