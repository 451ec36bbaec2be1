/** What lists and objects of the Kubernetes API have in common. */

export type Collection = {
  /** As in `/api/v1/namespaces/openclaw/pods`. */
  readonly path: string
  readonly fieldSelector?: string | undefined
}

/** The path of a request for a collection, with these parameters. */
export function pathOf(
  { path, fieldSelector }: Collection,
  parameters: Readonly<Record<string, string>>,
): string {
  const query = new URLSearchParams({
    ...parameters,
    ...(fieldSelector === undefined ? {} : { fieldSelector }),
  })
  return `${path}?${query.toString()}`
}

/** One page of a list (Kubernetes API concepts, "Retrieving large results sets in chunks"). */
export type ListPage = {
  readonly items: readonly unknown[]
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string }
}

export const isListPage = (body: unknown): body is ListPage => {
  const list = body as { items?: unknown; metadata?: { resourceVersion?: unknown } } | null
  return Array.isArray(list?.items) && typeof list.metadata?.resourceVersion === 'string'
}

/** The `resourceVersion` of an object. Throws an `Error` if it has none. */
export function versionOf(object: unknown): string {
  const version = (object as { metadata?: { resourceVersion?: unknown } } | null)?.metadata
    ?.resourceVersion
  if (typeof version !== 'string') throw new Error('an object has no resourceVersion')
  return version
}
