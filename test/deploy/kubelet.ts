/** Stands in for a kubelet: gives a real Pod object an address, its volumes, and processes on this machine. */

import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import type { Json } from '../cluster/api.ts'
import { startProcess, type Exit, type Running } from '../openclaw/processes.ts'
import { containersOf, type Container, type KubeObject, type PodTemplate } from './objects.ts'
import type { DeployRig } from './deploy-rig.ts'

export type PodProcesses = Awaited<ReturnType<typeof adoptPod>>

/** What an image brings: where its programs and files are here, and what it runs unless told otherwise. */
export type Image = {
  readonly words: Readonly<Record<string, string>>
  readonly entrypoint: readonly string[]
}

type Source = {
  readonly configMap?: Keys & { readonly name: string }
  readonly secret?: Keys & { readonly name?: string; readonly secretName?: string }
  readonly serviceAccountToken?: {
    readonly path: string
    readonly audience?: string
    readonly expirationSeconds: number
  }
  readonly downwardAPI?: { readonly items: readonly { readonly path: string }[] }
  readonly projected?: { readonly sources: readonly Source[] }
}
type Keys = { readonly items?: readonly { readonly key: string; readonly path: string }[] }
type Data = { readonly data?: Readonly<Record<string, string>> }
type Pod = KubeObject &
  PodTemplate & { readonly metadata: { readonly uid: string; readonly name: string } }
type Variable = NonNullable<Container['env']>[number] & {
  readonly valueFrom?: { readonly secretKeyRef?: { readonly name: string; readonly key: string } }
}

const SIDECAR = join(import.meta.dirname, '../../sidecar/src/main.ts')
/** Where the images' own user lives; the rest of what is written to is mounted. */
const HOME = '/home/node'
const READ_ONLY = 0o444

/** The image of `Dockerfile.sidecar`, as far as it counts here. */
const SIDECAR_IMAGE: Image = {
  words: { 'auth-sidecar': SIDECAR },
  entrypoint: [process.execPath, SIDECAR],
}

/** Makes the pod run at an address, as far as the API server can tell. */
export const adoptPod = async (rig: DeployRig, namespace: string, name: string, ip: string) => {
  const path = `/api/v1/namespaces/${namespace}/pods/${name}`
  const pod = (await rig.api.must({ method: 'GET', path })) as unknown as Pod
  const setStatus = (status: Json) =>
    rig.api.must({ method: 'PATCH', path: `${path}/status`, body: { status } })
  await setStatus({ phase: 'Running', podIP: ip, podIPs: [{ ip }] })
  const root = mkdtempSync(join(rig.directory, 'pod-'))
  const find = (name_: string): Container => {
    const found = containersOf(pod).find((each) => each.name === name_)
    if (found === undefined) throw new Error(`pod ${name} has no container ${name_}`)
    return found
  }
  const volumes = createVolumes(rig, namespace, pod, root)

  /** A container's process; `through` can change its command and environment. */
  const start = async (
    containerName: string,
    image: Image,
    through: (text: string) => string = (text) => text,
  ): Promise<Running> => {
    const container = find(containerName)
    const localize = await volumes.mount(container)
    const said = [...(container.command ?? image.entrypoint), ...(container.args ?? [])]
    const [command = '', ...args] = said.map((word, at) => {
      const isOfImage = at === 0 || word.startsWith('/')
      return through((isOfImage ? image.words[word] : undefined) ?? localize(word))
    })
    const env = await environment(rig, namespace, container)
    const local = Object.entries(env).map(([key, value]) => [key, through(localize(value))])
    return startProcess({
      name: `${name}/${containerName}`,
      command,
      args,
      env: { TMPDIR: localize('/tmp'), ...(Object.fromEntries(local) as Record<string, string>) },
    })
  }

  return {
    name,
    ip,
    pod,
    start,
    find,
    /** Where a path of a container is here. */
    locate: async (containerName: string, path_: string) =>
      (await volumes.mount(find(containerName)))(path_),
    /** The sidecar with its rendered configuration: only paths and, if given, options differ. */
    startSidecar: async (set: readonly string[] = []): Promise<Running> => {
      const container = find('auth-sidecar')
      const localize = await volumes.mount(container)
      const file = localize(container.args?.at(-1) ?? '')
      const flags = [...relocations(file, localize), ...set].flatMap((each) => ['--set', each])
      const { hostname, port } = rig.config.server
      const [command = '', ...args] = SIDECAR_IMAGE.entrypoint
      return startProcess({
        name: `${name}/auth-sidecar`,
        command,
        args: [...args, ...(container.args ?? []).map(localize), ...flags],
        env: { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port },
      })
    },
    /** What the kubelet says of a pod whose containers have ended. */
    finish: ({ code }: Exit) => setStatus({ phase: code === 0 ? 'Succeeded' : 'Failed' }),
  }
}

/** `--set` for every path the sidecar will open, named or by default. */
const relocations = (file: string, localize: (path: string) => string): readonly string[] => {
  const read = (path: string) => readFileSync(path, 'utf8')
  const { config } = loadConfig({ file, env: {}, flags: [], readFile: read })
  const mount = '/var/run/secrets/kubernetes.io/serviceaccount'
  const inCluster = { kubernetes: { caFile: `${mount}/ca.crt`, tokenFile: `${mount}/token` } }
  return (
    [...pathsIn(config, ''), ...pathsIn(inCluster, '')]
      // What is not mounted stays as it is, and is missed where it is needed.
      .filter(([, path]) => localize(path) !== path && existsSync(localize(path)))
      .map(([option, path]) => `${option}=${localize(path)}`)
  )
}

const pathsIn = (tree: object, prefix: string): readonly (readonly [string, string])[] =>
  Object.entries(tree).flatMap(([key, value]: [string, unknown]) => {
    if (typeof value === 'string' && value.startsWith('/')) return [[`${prefix}${key}`, value]]
    const isBranch = typeof value === 'object' && value !== null && !Array.isArray(value)
    return isBranch ? pathsIn(value, `${prefix}${key}.`) : []
  })

const createVolumes = (rig: DeployRig, namespace: string, pod: Pod, root: string) => {
  const ready = new Map<string, Promise<void>>()
  const directory = (volume: string) => join(root, volume)

  const read = async (kind: string, name: string): Promise<Data['data']> => {
    const path = `/api/v1/namespaces/${namespace}/${kind}/${name}`
    return ((await rig.api.must({ method: 'GET', path })) as Data).data
  }
  const token = async ({
    audience,
    expirationSeconds,
  }: NonNullable<Source['serviceAccountToken']>) => {
    const account = pod.spec.serviceAccountName ?? 'default'
    const boundObjectRef = { kind: 'Pod', name: pod.metadata.name, uid: pod.metadata.uid }
    const body = {
      spec: {
        audiences: audience === undefined ? [] : [audience],
        expirationSeconds,
        boundObjectRef: { apiVersion: 'v1', ...boundObjectRef },
      },
    }
    const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`
    const answer = await rig.api.must({ method: 'POST', path, body })
    return (answer['status'] as { token: string }).token
  }
  /** Files of a source, by their path in the volume. */
  const filesOf = async (source: Source): Promise<readonly (readonly [string, string])[]> => {
    if (source.projected !== undefined) {
      return (await Promise.all(source.projected.sources.map(filesOf))).flat()
    }
    const { configMap, secret, serviceAccountToken, downwardAPI } = source
    if (serviceAccountToken !== undefined) {
      return [[serviceAccountToken.path, await token(serviceAccountToken)]]
    }
    if (downwardAPI !== undefined) return downwardAPI.items.map(({ path }) => [path, namespace])
    if (configMap !== undefined) {
      return chosen(configMap, (await read('configmaps', configMap.name)) ?? {})
    }
    if (secret === undefined) return []
    const data = (await read('secrets', secret.secretName ?? secret.name ?? '')) ?? {}
    const decode = ([path, value]: readonly [string, string]) =>
      [path, Buffer.from(value, 'base64').toString()] as const
    return chosen(secret, data).map(decode)
  }

  const make = async (name: string, localize: (text: string) => string): Promise<void> => {
    mkdirSync(directory(name), { recursive: true })
    const volume = pod.spec.volumes?.find((each) => each.name === name)
    // The claim of a StatefulSet is not a volume of its template.
    for (const [path, text] of await filesOf((volume ?? {}) as Source)) {
      const file = join(directory(name), path)
      mkdirSync(dirname(file), { recursive: true })
      writeFileSync(file, path.endsWith('.json') ? localize(text) : text)
      chmodSync(file, READ_ONLY)
    }
  }

  return {
    /** Makes what the container mounts; resolves with what turns its paths into ours. */
    mount: async ({ volumeMounts = [] }: Container) => {
      const here = new Map([[HOME, join(root, 'home')]])
      for (const { name, mountPath } of volumeMounts) here.set(mountPath, directory(name))
      const paths = [...here.keys()].toSorted((a, b) => b.length - a.length)
      // In one pass, since our paths can contain theirs.
      const theirs = new RegExp(`(?<![\\w.-])(${paths.join('|')})(?![\\w.-])`, 'g')
      const localize = (text: string) => text.replaceAll(theirs, (path) => here.get(path) ?? path)
      mkdirSync(join(root, 'home'), { recursive: true })
      for (const { name } of volumeMounts) {
        if (!ready.has(name)) ready.set(name, make(name, localize))
        await ready.get(name)
      }
      return localize
    },
  }
}

const chosen = ({ items }: Keys, data: Readonly<Record<string, string>>) =>
  items?.map(({ key, path }) => [path, present(data, key)] as const) ?? Object.entries(data)

const present = (data: Readonly<Record<string, string>>, key: string): string => {
  const value = data[key]
  if (value === undefined)
    throw new Error(`there is no key ${key} among ${Object.keys(data).join()}`)
  return value
}

const environment = async (rig: DeployRig, namespace: string, { env = [] }: Container) => {
  const all: Record<string, string> = {}
  for (const { name, value, valueFrom } of env as readonly Variable[]) {
    const from = valueFrom?.secretKeyRef
    if (from === undefined) {
      all[name] = value ?? ''
      continue
    }
    const path = `/api/v1/namespaces/${namespace}/secrets/${from.name}`
    const { data = {} } = (await rig.api.must({ method: 'GET', path })) as Data
    all[name] = Buffer.from(present(data, from.key), 'base64').toString()
  }
  return all
}
