/** The API server's own OpenAPI as schemas for kubeconform: closed, so that a misspelled field shows. */

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Api } from '../cluster/api.ts'

type Schema = { readonly [key: string]: unknown }
type Kind = { readonly group: string; readonly version: string; readonly kind: string }
type Document = { readonly components?: { readonly schemas?: Readonly<Record<string, Schema>> } }

/** How kubeconform finds them in their directory. */
export const SCHEMA_LOCATION = '{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json'

const REFERENCE = '#/components/schemas/'
const KINDS = 'x-kubernetes-group-version-kind'
/** Discovery documents that hold no kinds, and would only cost time. */
const IS_GROUP_VERSION = /^(api|apis\/[^/]+)\/v[^/]+$/

/** Writes the schemas of every kind the server has; resolves with how many those are. */
export const writeSchemas = async (api: Api, directory: string): Promise<number> => {
  const index = await api.must({ method: 'GET', path: '/openapi/v3' })
  const paths = index['paths'] as Readonly<Record<string, { readonly serverRelativeURL: string }>>
  const documents = Object.entries(paths).filter(([path]) => IS_GROUP_VERSION.test(path))
  let written = 0
  for (const [, { serverRelativeURL: path }] of documents) {
    const { components } = (await api.must({ method: 'GET', path })) as Document
    written += writeKinds(components?.schemas ?? {}, directory)
  }
  return written
}

const writeKinds = (schemas: Readonly<Record<string, Schema>>, directory: string): number => {
  let written = 0
  for (const [name, schema] of Object.entries(schemas)) {
    const kinds = schema[KINDS] as readonly Kind[] | undefined
    // What has many of them is a list or an option of some request, not an object.
    const [kind] = kinds?.length === 1 ? kinds : []
    if (kind === undefined) continue
    const group = kind.group === '' ? kind.version : kind.group
    mkdirSync(join(directory, group), { recursive: true })
    const file = join(directory, group, `${kind.kind.toLowerCase()}_${kind.version}.json`)
    const own = Object.fromEntries(
      [...reachable(name, schemas)].map((each) => [each, close(schemas[each] ?? {})]),
    )
    const top = { $ref: `${REFERENCE}${name}`, components: { schemas: own } }
    writeFileSync(file, JSON.stringify(top))
    written += 1
  }
  return written
}

const reachable = (
  name: string,
  schemas: Readonly<Record<string, Schema>>,
  seen = new Set<string>(),
): ReadonlySet<string> => {
  if (seen.has(name)) return seen
  seen.add(name)
  const text = JSON.stringify(schemas[name] ?? {})
  for (const [, next = ''] of text.matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)) {
    reachable(next, schemas, seen)
  }
  return seen
}

/**
 * An object that lists its fields has no others. Alternatives only add to what stands beside them,
 * and are left as they are.
 */
const close = (schema: Schema): Schema => {
  const { properties, items, additionalProperties, nullable, type, ...rest } = schema
  const isOpen = schema['x-kubernetes-preserve-unknown-fields'] === true
  return {
    ...rest,
    // A word of OpenAPI that JSON Schema does not know.
    ...(type === undefined ? {} : { type: nullable === true ? [type, 'null'] : type }),
    ...(properties === undefined ? {} : { properties: closeEach(properties as Schema) }),
    ...(items === undefined ? {} : { items: close(items as Schema) }),
    ...(properties === undefined || isOpen ? {} : { additionalProperties: false }),
    ...(typeof additionalProperties === 'object'
      ? { additionalProperties: close(additionalProperties as Schema) }
      : {}),
  }
}

const closeEach = (properties: Schema): Schema =>
  Object.fromEntries(
    Object.entries(properties).map(([name, schema]) => [name, close(schema as Schema)]),
  )
