/** The documents that the chart renders, read by the programs that use them. */

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import type { Config } from '@openclaw-k8s/auth-sidecar/config/schema.ts'
import { parse } from 'yaml'
import { createAuthority } from '../kit/authority.ts'
import { ofKind, templateOf, type Container, type KubeObject } from './objects.ts'
import { CHART, CI_VALUES, render } from './render.ts'
import { startDeployRig, type DeployRig } from './deploy-rig.ts'
import { run } from './tools.ts'

const found = await startDeployRig()
const skip = 'why' in found && found.why

const SIDECAR = join(import.meta.dirname, '../../sidecar/src/main.ts')
const IN_CLUSTER = '/var/run/secrets/kubernetes.io/serviceaccount'

type Variant = {
  readonly name: string
  readonly text: string
  readonly config: Config
  readonly container: Container
  readonly objects: readonly KubeObject[]
}

describe('configuration', { skip }, () => {
  const rig = found as DeployRig
  let variants: readonly Variant[]

  before(async () => {
    variants = await Promise.all(
      ['values.yaml', ...CI_VALUES.map((name) => `ci/${name}`)].map(async (name) => {
        const objects = await render(rig, { values: [join(CHART, name)] })
        const text = ofKind(objects, 'ConfigMap').flatMap(({ data }) => data?.['config.yaml'] ?? [])
        assert.equal(text.length, 1, name)
        const [only = ''] = text
        const container = sidecarOf(objects)
        return { name, text: only, config: load(only, envOf(container)), container, objects }
      }),
    )
  })

  const checkConfig = (text: string, flags: readonly string[] = []) => {
    const file = join(rig.directory, 'config.yaml')
    writeFileSync(file, text)
    return run({
      path: process.execPath,
      args: [SIDECAR, 'check-config', '--config', file, ...flags],
    })
  }

  test('check-config takes what every feature renders, without a warning', async () => {
    const authority = await createAuthority()
    const { cert, key } = await authority.issue({ commonName: 'openclaw-gateway' })
    const files = {
      certFile: join(rig.directory, 'tls.crt'),
      keyFile: join(rig.directory, 'tls.key'),
      clientCaFile: join(rig.directory, 'ca.crt'),
    }
    writeFileSync(files.certFile, cert)
    writeFileSync(files.keyFile, key)
    writeFileSync(files.clientCaFile, authority.cert)
    for (const { name, text, config } of variants) {
      const flags = Object.entries(files)
        .filter(([option]) => Object.hasOwn(config.listen.tls ?? {}, option))
        .flatMap(([option, file]) => ['--set', `listen.tls.${option}=${file}`])
      const { code, stdout, stderr } = await checkConfig(text, flags)
      assert.equal(code, 0, `${name}: ${stderr}`)
      assert.equal(stderr, '', name)
      assert.match(stdout, /^OK: (1 identity|[2-9] identities) allowed/, name)
    }
  })

  test('check-config would say what is wrong, and where', async () => {
    const { code, stderr } = await checkConfig(`${variants[0]?.text}\nunheard: 1\n`)
    assert.equal(code, 78)
    assert.match(stderr, /unheard/)
  })

  test('every file the sidecar reads is in a place the chart mounts, read-only', () => {
    for (const { name, config, container } of variants) {
      const isOpenclaw = config.gateway.protocol === 'openclaw'
      const paths = [
        `${IN_CLUSTER}/token`,
        config.listen.tls?.certFile,
        config.listen.tls?.keyFile,
        config.listen.tls?.clientCaFile,
        ...(isOpenclaw ? [config.gateway.auth?.secretFile, config.gateway.deviceSeedFile] : []),
      ]
      for (const path of paths.filter((each) => each !== undefined)) {
        const mount = container.volumeMounts?.find(({ mountPath }) =>
          path.startsWith(`${mountPath}/`),
        )
        assert.ok(mount, `${name}: ${path}`)
        assert.equal((mount as { readOnly?: boolean }).readOnly, true, `${name}: ${path}`)
      }
    }
  })

  test('ports, probes, Service and policy are those of the configuration', () => {
    for (const { name, config, container, objects } of variants) {
      const [workers, admin] = [config.listen.workers, config.listen.admin].map(({ port }) => port)
      assert.deepEqual(
        container.ports?.map((each) => [each.name, each.containerPort]),
        [
          ['workers', workers],
          ['admin', admin],
        ],
        name,
      )
      const targets = ofKind(objects, 'Service').flatMap(({ spec }) =>
        ((spec?.['ports'] ?? []) as readonly { targetPort: number }[]).map(
          ({ targetPort }) => targetPort,
        ),
      )
      assert.ok(
        targets.every((each) => each === workers || each === admin),
        `${name}: ${targets.join()}`,
      )
      const allowed = ofKind(objects, 'NetworkPolicy').flatMap(({ spec }) =>
        ((spec?.['ingress'] ?? []) as readonly { ports: readonly { port: number }[] }[]).flatMap(
          ({ ports }) => ports.map(({ port }) => port),
        ),
      )
      assert.ok(
        allowed.every((each) => each === workers || each === admin),
        `${name}: ${allowed.join()}`,
      )
    }
  })

  test("the workers' tokens are for the audience the sidecar asks for", () => {
    for (const { name, config, objects } of variants) {
      const audiences =
        JSON.stringify(objects.map(templateOf)).match(/(?<="audience":")[^"]+/g) ?? []
      assert.ok(
        audiences.every((each) => config.k8sTrust.audiences.includes(each)),
        name,
      )
    }
  })

  test('the drain ends before the pod has to', () => {
    for (const { name, config, objects } of variants) {
      for (const { spec } of ofKind(objects, 'StatefulSet')) {
        const { terminationGracePeriodSeconds: grace, containers } = (
          spec as unknown as { template: { spec: Ending } }
        ).template.spec
        const sleep = containers[0]?.lifecycle.preStop.sleep.seconds ?? 0
        const windowS = config.drain.window / 1000
        assert.ok(sleep > windowS, `${name}: the gateway stays while the workers are sent away`)
        assert.ok(grace > sleep + 5, `${name}: ${grace} s of grace`)
      }
    }
  })
})

type Ending = {
  readonly terminationGracePeriodSeconds: number
  readonly containers: readonly {
    readonly lifecycle: { readonly preStop: { readonly sleep: { readonly seconds: number } } }
  }[]
}

const load = (text: string, env: Readonly<Record<string, string>> = {}): Config =>
  loadConfig({ file: 'config.yaml', env, flags: [], readFile: () => text }).config

const envOf = ({ env = [] }: Container) =>
  Object.fromEntries(env.map(({ name, value = '' }) => [name, value]))

/** Of the gateway's pod, or of the patch for a gateway that exists. */
const sidecarOf = (objects: readonly KubeObject[]): Container => {
  const patches = ofKind(objects, 'ConfigMap').flatMap(({ data }) => data?.['patch.yaml'] ?? [])
  const templates = [
    ...objects.map(templateOf),
    ...patches.map((text) => templateOf(parse(text) as KubeObject)),
  ].filter((each) => each !== undefined)
  const sidecar = templates
    .flatMap(({ spec }) => spec.initContainers ?? [])
    .find(({ name }) => name === 'auth-sidecar')
  assert.ok(sidecar)
  return sidecar
}
