/** Reads what `KUBECONFIG` names: where a cluster is, and who we are to it. */

import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { parse } from 'yaml'

export type Kubeconfig = {
  readonly server: URL
  /** PEM. */
  readonly ca: string
  readonly clientCert: string | undefined
  readonly clientKey: string | undefined
  readonly token: string | undefined
  /** Where the file is: files next to it can show that the cluster is our own. */
  readonly directory: string
}

type Fields = Readonly<Record<string, string | undefined>>

/** A kubeconfig's `clusters`, `users` and `contexts`: each names a member of its own kind. */
type Named = readonly (Readonly<Record<string, unknown>> & { readonly name: string })[]

/** Client certificates and tokens are understood; a plug-in that fetches credentials is not. */
export const readKubeconfig = (path: string): Kubeconfig => {
  const directory = dirname(resolve(path))
  const file = parse(readFileSync(path, 'utf8')) as Readonly<Record<string, unknown>>
  const pick = (kind: string, name: string | undefined): Fields => {
    const entry = (file[`${kind}s`] as Named | undefined)?.find((each) => each.name === name)
    if (entry === undefined) throw new Error(`${path} has no ${kind} ${name}`)
    return entry[kind] as Fields
  }
  const fileText = (name: string | undefined) =>
    name === undefined ? undefined : readFileSync(resolve(directory, name), 'utf8')
  const pem = (from: Fields, key: string) => {
    const inline = from[`${key}-data`]
    return inline === undefined ? fileText(from[key]) : Buffer.from(inline, 'base64').toString()
  }

  const context = pick('context', file['current-context'] as string | undefined)
  const cluster = pick('cluster', context['cluster'])
  const user = pick('user', context['user'])
  const ca = pem(cluster, 'certificate-authority')
  if (ca === undefined) throw new Error(`${path} names no CA: the sidecar always checks one`)
  return {
    server: new URL(cluster['server'] ?? ''),
    ca,
    clientCert: pem(user, 'client-certificate'),
    clientKey: pem(user, 'client-key'),
    token: (user['token'] ?? fileText(user['tokenFile']))?.trim(),
    directory,
  }
}
