/** What the chart's objects say: secrets, identities, probes, selectors, and who can reach whom. */

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { isMatch, type LabelSelector } from './label-selector.ts'
import { isAllowed, type End } from './network-policy.ts'
import {
  containersOf,
  ofKind,
  pick,
  templateOf,
  type Container,
  type KubeObject,
  type PodTemplate,
} from './objects.ts'
import { CHART, CI_VALUES, NAMESPACE, render, type Rendering } from './render.ts'
import { startDeployRig, type DeployRig } from './deploy-rig.ts'

const found = await startDeployRig()
const skip = 'why' in found && found.why

const WORKER_PORT = 18_443
const ADMIN_PORT = 9464
const GATEWAY_PORT = 18_789

describe('rendered objects', { skip }, () => {
  const rig = found as DeployRig
  let objects: readonly KubeObject[]
  /** By what they are made of: the chart's own values, and each feature's. */
  let variants: readonly (readonly [string, readonly KubeObject[]])[]

  before(async () => {
    objects = await render(rig)
    const renderings: readonly (readonly [string, Rendering])[] = [
      ['the values as they are', {}],
      ['release foo', { release: 'foo' }],
      ...CI_VALUES.map((name) => [name, { values: [join(CHART, 'ci', name)] }] as const),
    ]
    variants = await Promise.all(
      renderings.map(async ([name, rendering]) => [name, await render(rig, rendering)] as const),
    )
  })

  const template = (kind: string, name: string, among = objects): PodTemplate => {
    const made = templateOf(pick(among, kind, name))
    assert.ok(made)
    return made
  }
  const gateway = () => template('StatefulSet', 'openclaw-gateway')
  const worker = () => template('Deployment', 'openclaw-worker')
  const container = (of: PodTemplate, name: string): Container => {
    const one = containersOf(of).find((each) => each.name === name)
    assert.ok(one, `no container ${name}`)
    return one
  }
  const volumeOf = (of: PodTemplate, name: string) =>
    of.spec.volumes?.find((each) => each.name === name)

  test('the names in a cluster are the promised ones, by the release', async () => {
    for (const [release, fullname] of [
      ['openclaw', 'openclaw'],
      ['foo', 'foo-openclaw'],
    ] as const) {
      const made = await render(rig, { release })
      for (const [kind, name] of [
        ['StatefulSet', `${fullname}-gateway`],
        ['Service', `${fullname}-gateway`],
        ['ServiceAccount', `${fullname}-gateway`],
        ['ConfigMap', `${fullname}-gateway-config`],
        ['ConfigMap', `${fullname}-auth-sidecar`],
        ['Secret', `${fullname}-gateway-token`],
        ['Deployment', `${fullname}-worker`],
        ['HorizontalPodAutoscaler', `${fullname}-worker`],
        ['ServiceAccount', `${fullname}-worker`],
        ['ConfigMap', `${fullname}-worker-config`],
        ['Role', `${fullname}-auth-sidecar`],
        ['RoleBinding', `${fullname}-auth-sidecar`],
      ] as const) {
        pick(made, kind, name)
      }
    }
  })

  test('cluster-wide objects collide with no other release, in any namespace', async () => {
    const isClusterWide = ({ kind }: KubeObject) => kind.startsWith('Cluster')
    const namesIn = async (rendering: Rendering) =>
      (await render(rig, rendering)).filter(isClusterWide).map(({ metadata }) => metadata.name)
    const names = await Promise.all([
      namesIn({ namespace: 'a' }),
      namesIn({ namespace: 'b' }),
      namesIn({ namespace: 'a', release: 'foo' }),
    ])
    assert.ok(names.every((each) => each.length > 0))
    assert.equal(new Set(names.flat()).size, new Set(names[0]).size * 3)
    const shared = [
      'k8sTrust.allowedIdentities[0].namespace=shared',
      'k8sTrust.allowedIdentities[0].serviceAccount=w',
    ]
    const set = ['workers.enabled=false', ...shared.map((each) => `sidecar.config.${each}`)]
    const placed = async (namespace: string) =>
      (await render(rig, { namespace, set }))
        .filter(({ metadata }) => metadata.namespace === 'shared')
        .map(({ kind, metadata }) => `${kind}/${metadata.name}`)
    const [a, b] = [await placed('a'), await placed('b')]
    assert.equal(a.length, 2, "a Role and its binding in the workers' namespace")
    assert.ok(
      a.every((each) => !b.includes(each)),
      `${a.join()} and ${b.join()}`,
    )
  })

  test('every object but those of the cluster names its namespace and carries the common labels', () => {
    for (const [variant, made] of variants) {
      for (const { kind, metadata } of made) {
        const what = `${variant}: ${kind}/${metadata.name}`
        if (!kind.startsWith('Cluster')) assert.ok(metadata.namespace, what)
        // A hook is not part of the release, and only has to be let in as a worker.
        const isHook = metadata.annotations?.['helm.sh/hook'] !== undefined
        const more = isHook ? [] : ['version', 'part-of', 'managed-by']
        for (const label of ['name', 'instance', 'component', ...more]) {
          assert.ok(metadata.labels?.[`app.kubernetes.io/${label}`], `${what}: ${label}`)
        }
      }
    }
  })

  describe('secrets', () => {
    test('nothing that is in a Secret is anywhere else', async () => {
      const marker = 'the-marked-token-of-the-gateway'
      for (const values of [[], ...CI_VALUES.map((name) => [join(CHART, 'ci', name)])]) {
        const made = await render(rig, { values, set: [`gateway.token=${marker}`] })
        const hidden = ofKind(made, 'Secret').flatMap(({ data = {}, stringData = {} }) => [
          ...Object.values(stringData),
          ...Object.values(data).flatMap((each) => [each, Buffer.from(each, 'base64').toString()]),
        ])
        const others = made
          .filter(({ kind }) => kind !== 'Secret')
          .map((each) => JSON.stringify(each))
        for (const secret of [marker, ...hidden]) {
          const seen = others.filter((text) => text.includes(secret))
          assert.deepEqual(seen, [], `${values.join()}: ${secret.slice(0, 8)}…`)
        }
      }
    })

    test('no ConfigMap has a field that holds a secret by value', () => {
      const held =
        /"?(token|password|secret|seed|apiKey|api_key|privateKey)"? *[:=] *["']?[A-Za-z0-9+/_-]{8,}/i
      for (const [variant, made] of variants) {
        for (const { metadata, data = {} } of ofKind(made, 'ConfigMap')) {
          for (const [key, text] of Object.entries(data)) {
            if (!/\.(json|yaml)$/.test(key) || /dashboard/.test(key)) continue
            assert.ok(
              !held.test(text),
              `${variant}: ${metadata.name}/${key}: ${held.exec(text)?.[0]}`,
            )
          }
        }
      }
      assert.ok(held.test('{"token": "0123456789abcdef"}'), 'the search finds what it is for')
    })

    test('the Secrets outlive their release, and the token is drawn or given', async () => {
      const secrets = ofKind(objects, 'Secret')
      for (const { metadata } of secrets) {
        assert.equal(metadata.annotations?.['helm.sh/resource-policy'], 'keep')
      }
      const drawn = secrets.flatMap((each) =>
        Object.keys(each.data ?? {}).map((key) => decoded(each, key)),
      )
      assert.equal(drawn.length, 2)
      assert.ok(drawn.every((each) => each.length >= 32) && drawn[0] !== drawn[1])
      const given = await render(rig, { set: ['gateway.token=the-given-token-itself'] })
      const secret = pick(given, 'Secret', 'openclaw-gateway-token')
      assert.equal(decoded(secret, 'token'), 'the-given-token-itself')
    })

    test('with a Secret of your own the chart makes none for the token', async () => {
      const made = await render(rig, {
        set: ['gateway.existingSecret=mine', 'gateway.secretKey=key'],
      })
      const keys = ofKind(made, 'Secret').flatMap(({ data = {} }) => Object.keys(data))
      assert.deepEqual(keys, ['device-seed'])
      const text = JSON.stringify(template('StatefulSet', 'openclaw-gateway', made))
      assert.match(text, /"secretKeyRef":\{"name":"mine","key":"key"\}/)
      assert.match(text, /"secretName":"mine"/)
    })
  })

  describe('identities', () => {
    const tokenVolumes = (of: PodTemplate): readonly string[] =>
      (of.spec.volumes ?? [])
        .filter((each) => JSON.stringify(each).includes('"serviceAccountToken"'))
        .map(({ name }) => name)
    const mounts = (of: PodTemplate, name: string): readonly string[] =>
      (container(of, name).volumeMounts ?? []).map((each) => each.name)

    test('the gateway and the workers get no token for the API server; the sidecar does', () => {
      for (const [variant, made] of variants) {
        for (const object of made) {
          const of = templateOf(object)
          if (of === undefined) continue
          assert.equal(of.spec.automountServiceAccountToken, false, `${variant}: ${object.kind}`)
        }
        for (const { automountServiceAccountToken } of ofKind(
          made,
          'ServiceAccount',
        ) as readonly Account[]) {
          assert.equal(automountServiceAccountToken, false, variant)
        }
      }
      const [own = '', ...more] = tokenVolumes(gateway())
      assert.deepEqual(more, [])
      assert.ok(mounts(gateway(), 'auth-sidecar').includes(own))
      assert.ok(!mounts(gateway(), 'gateway').includes(own))
      assert.ok(
        !JSON.stringify(volumeOf(gateway(), own)).includes('audience'),
        "the API server's own",
      )
    })

    test("a worker's token is for the sidecar alone, and lives an hour", () => {
      const [name = '', ...more] = tokenVolumes(worker())
      assert.deepEqual(more, [])
      const { projected } = volumeOf(worker(), name) as unknown as Projected
      assert.deepEqual(projected.sources, [
        {
          serviceAccountToken: {
            path: 'token',
            audience: 'openclaw-gateway',
            expirationSeconds: 3600,
          },
        },
      ])
      assert.equal(gateway().spec.serviceAccountName, 'openclaw-gateway')
      assert.equal(worker().spec.serviceAccountName, 'openclaw-worker')
    })

    test('a worker is given its token by file, and nothing secret by its environment', () => {
      const json =
        pick(objects, 'ConfigMap', 'openclaw-worker-config').data?.['openclaw.json'] ?? ''
      const config = JSON.parse(json) as WorkerConfig
      const { source, provider } = config.gateway.auth.token
      assert.equal(source, 'exec')
      const { command, args } = config.secrets.providers[provider] ?? {}
      const mount = container(worker(), 'worker').volumeMounts?.find(({ mountPath }) =>
        args?.some((each) => each.startsWith(`${mountPath}/`)),
      )
      assert.ok(command?.startsWith('/') && mount !== undefined)
      assert.ok(tokenVolumes(worker()).includes(mount.name))
      assert.ok(!JSON.stringify(worker()).includes('secretKeyRef'))
    })
  })

  test('images and pull policies are those of the values', async () => {
    const set = [
      ...['repository=a/openclaw', 'tag=v1', 'pullPolicy=Always'].map((each) => `image.${each}`),
      ...['repository=b/sidecar', 'tag=v2', 'pullPolicy=Never'].map(
        (each) => `sidecar.image.${each}`,
      ),
    ]
    const used = (await render(rig, { set }))
      .flatMap((each) => {
        const of = templateOf(each)
        return of === undefined ? [] : containersOf(of)
      })
      .map(({ name, image, imagePullPolicy }) => `${name} ${image} ${imagePullPolicy}`)
    assert.ok(used.length > 3)
    for (const each of used) {
      const isSidecar = each.startsWith('auth-sidecar ')
      assert.ok(each.endsWith(isSidecar ? ' b/sidecar:v2 Never' : ' a/openclaw:v1 Always'), each)
    }
    const local = await render(rig, { values: [join(CHART, 'values-local.yaml')] })
    for (const name of ['gateway', 'auth-sidecar']) {
      const { image, imagePullPolicy } = container(
        template('StatefulSet', 'openclaw-gateway', local),
        name,
      )
      assert.match(image, /^localhost\//)
      assert.equal(imagePullPolicy, 'Never')
    }
  })

  test('every container is confined as far as it can be', () => {
    for (const [variant, made] of variants) {
      for (const object of made) {
        for (const { name, securityContext } of containersOf(
          templateOf(object) ?? { spec: { containers: [] } },
        )) {
          const what = `${variant}: ${object.metadata.name}/${name}`
          assert.equal(securityContext?.['allowPrivilegeEscalation'], false, what)
          assert.equal(securityContext?.['readOnlyRootFilesystem'], true, what)
          assert.equal(securityContext?.['runAsNonRoot'], true, what)
          assert.deepEqual(securityContext?.['capabilities'], { drop: ['ALL'] }, what)
        }
      }
    }
    assert.equal(container(gateway(), 'auth-sidecar').securityContext?.['runAsUser'], 65_532)
  })

  test('the sidecar is a native one, up before the gateway without waiting for it', () => {
    const { initContainers = [], containers } = gateway().spec
    assert.deepEqual(
      initContainers.map(({ name, restartPolicy }) => [name, restartPolicy]),
      [['auth-sidecar', 'Always']],
    )
    assert.deepEqual(
      containers.map(({ name }) => name),
      ['gateway'],
    )
    const { startupProbe, readinessProbe, livenessProbe } = container(gateway(), 'auth-sidecar')
    const path = (probe: object | undefined) => (probe as Probe).httpGet?.path
    assert.deepEqual([startupProbe, livenessProbe, readinessProbe].map(path), [
      '/livez',
      '/livez',
      '/readyz',
    ])
  })

  test('the gateway is on loopback, and so are its probes', () => {
    const config =
      pick(objects, 'ConfigMap', 'openclaw-gateway-config').data?.['openclaw.json'] ?? ''
    assert.equal((JSON.parse(config) as { gateway: { bind: string } }).gateway.bind, 'loopback')
    const { startupProbe, readinessProbe, livenessProbe, ports } = container(gateway(), 'gateway')
    for (const probe of [startupProbe, readinessProbe, livenessProbe] as readonly Probe[]) {
      assert.ok(probe.exec?.command.some((each) => each.includes(`127.0.0.1:${GATEWAY_PORT}`)))
      assert.equal(probe.httpGet, undefined)
    }
    assert.equal(ports, undefined, 'a port nobody can reach is not announced')
  })

  test('a workload with an autoscaler sets no replicas', async () => {
    const replicasOf = (made: readonly KubeObject[]) =>
      pick(made, 'Deployment', 'openclaw-worker').spec?.['replicas']
    assert.equal(replicasOf(objects), undefined)
    const { scaleTargetRef, metrics } =
      pick(objects, 'HorizontalPodAutoscaler', 'openclaw-worker').spec ?? {}
    assert.deepEqual(scaleTargetRef, {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      name: 'openclaw-worker',
    })
    assert.match(JSON.stringify(metrics), /"name":"cpu".*"averageUtilization":70/)
    const requests = (worker().spec.containers[0] as unknown as Resources).resources.requests
    assert.ok(requests.cpu, 'a share of nothing is nothing')
    const fixed = await render(rig, {
      set: ['workers.autoscaling.enabled=false', 'workers.replicas=3'],
    })
    assert.equal(replicasOf(fixed), 3)
    assert.equal(ofKind(fixed, 'HorizontalPodAutoscaler').length, 0)
  })

  test('every selector selects what it is meant for, and nothing else', () => {
    for (const [variant, made] of variants) {
      const templates = made.flatMap((each) => {
        const of = templateOf(each)
        return of === undefined
          ? []
          : [{ name: `${each.kind}/${each.metadata.name}`, labels: of.metadata?.labels ?? {} }]
      })
      const selected = (selector: LabelSelector) =>
        templates.filter(({ labels }) => isMatch(selector, labels)).map(({ name }) => name)
      for (const { kind, metadata, spec } of made) {
        const selector = spec?.['selector'] as LabelSelector | undefined
        if (kind === 'StatefulSet' || kind === 'Deployment' || kind === 'PodDisruptionBudget') {
          assert.equal(selected(selector ?? {}).length, 1, `${variant}: ${kind}/${metadata.name}`)
        }
        if (kind === 'Service' && templates.some(({ name }) => name.startsWith('StatefulSet/'))) {
          const names = selected({ matchLabels: (selector ?? {}) as Record<string, string> })
          assert.equal(names.length, 1, `${variant}: Service/${metadata.name}: ${names.join()}`)
          assert.match(names[0] ?? '', /^StatefulSet\//)
        }
      }
    }
    const { ports } = pick(objects, 'Service', 'openclaw-gateway').spec as unknown as {
      ports: readonly object[]
    }
    assert.deepEqual(ports, [{ name: 'workers', port: GATEWAY_PORT, targetPort: WORKER_PORT }])
  })

  describe('network policies', () => {
    const home = { name: NAMESPACE, labels: { 'kubernetes.io/metadata.name': NAMESPACE } }
    const monitoring = {
      name: 'monitoring',
      labels: { 'kubernetes.io/metadata.name': 'monitoring' },
    }
    const elsewhere = { name: 'default', labels: { 'kubernetes.io/metadata.name': 'default' } }
    const end = (of: PodTemplate, namespace = home): End => ({
      namespace,
      labels: of.metadata?.labels ?? {},
    })
    const stranger: End = { namespace: elsewhere, labels: { app: 'stranger' } }
    const neighbor: End = { namespace: home, labels: { app: 'neighbor' } }
    const prometheus: End = {
      namespace: monitoring,
      labels: { 'app.kubernetes.io/name': 'prometheus' },
    }
    const outside: End = { ip: '203.0.113.7' }
    const PORTS = [WORKER_PORT, ADMIN_PORT, GATEWAY_PORT, 22, 443, 10_250]

    /** Who reaches which ports of a pod. */
    const reach = (to: End, made = objects, all = actors()) =>
      Object.fromEntries(
        Object.entries(all).map(([name, from]) => [
          name,
          PORTS.filter((port) => isAllowed(made, { from, to, port })),
        ]),
      )
    const actors = (): Readonly<Record<string, End>> => ({
      worker: end(worker()),
      gateway: end(gateway()),
      'worker of another namespace': end(worker(), elsewhere),
      prometheus,
      neighbor,
      stranger,
      outside,
    })

    test('the gateway pod lets in workers to the worker port, Prometheus to the admin port, nothing else', () => {
      assert.deepEqual(reach(end(gateway())), {
        worker: [WORKER_PORT],
        gateway: [],
        'worker of another namespace': [],
        prometheus: [ADMIN_PORT],
        neighbor: [],
        stranger: [],
        outside: [],
      })
      const udp = isAllowed(objects, {
        from: end(worker()),
        to: end(gateway()),
        port: WORKER_PORT,
        protocol: 'UDP',
      })
      assert.equal(udp, false)
    })

    test('nobody reaches a worker', () => {
      assert.deepEqual(Object.values(reach(end(worker()))).flat(), [])
    })

    test('the handshake test is let in as a worker is', () => {
      const pod = ofKind(objects, 'Pod')[0]
      assert.ok(pod)
      const from = end(templateOf(pod) ?? worker())
      assert.ok(isAllowed(objects, { from, to: end(gateway()), port: WORKER_PORT }))
    })

    test("another release's workers are kept out, and so is everybody from another release's gateway", async () => {
      const foo = await render(rig, { release: 'foo' })
      const other = end(template('Deployment', 'foo-openclaw-worker', foo))
      const both = [...objects, ...foo]
      assert.ok(!isAllowed(both, { from: other, to: end(gateway()), port: WORKER_PORT }))
      const itsGateway = end(template('StatefulSet', 'foo-openclaw-gateway', foo))
      assert.ok(isAllowed(both, { from: other, to: itsGateway, port: WORKER_PORT }))
      assert.ok(!isAllowed(both, { from: end(worker()), to: itsGateway, port: WORKER_PORT }))
    })

    test('workers of further namespaces and another Prometheus come in by the values', async () => {
      const at = 'networkPolicy'
      const set = [
        `${at}.extraWorkers=[{"namespaceSelector":{"matchLabels":{"team":"blue"}}}]`,
        `${at}.prometheus=[{"podSelector":{"matchLabels":{"app":"neighbor"}}}]`,
      ]
      const made = await render(rig, { set })
      const blue = { namespace: { name: 'blue', labels: { team: 'blue' } }, labels: { any: 'pod' } }
      assert.deepEqual(reach(end(gateway()), made, { blue, neighbor, prometheus, stranger }), {
        blue: [WORKER_PORT],
        neighbor: [ADMIN_PORT],
        prometheus: [],
        stranger: [],
      })
      const none = await render(rig, { set: [`${at}.prometheus=[]`] })
      assert.deepEqual(reach(end(gateway()), none, { prometheus, stranger }), {
        prometheus: [],
        stranger: [],
      })
    })

    test('with limited egress the gateway reaches DNS and the API server, a worker DNS and the worker port', async () => {
      const made = await render(rig, { set: ['networkPolicy.egress.enabled=true'] })
      const system = {
        name: 'kube-system',
        labels: { 'kubernetes.io/metadata.name': 'kube-system' },
      }
      const dns: End = { namespace: system, labels: { 'k8s-app': 'kube-dns' } }
      const ends = { dns, gateway: end(gateway()), worker: end(worker()), neighbor, outside }
      const reached = (from: End) =>
        Object.fromEntries(
          Object.entries(ends).map(([name, to]) => [
            name,
            [53, ...PORTS].filter((port) => isAllowed(made, { from, to, port })),
          ]),
        )
      const none = { dns: [53], gateway: [], worker: [], neighbor: [], outside: [] }
      assert.deepEqual(reached(end(worker())), { ...none, gateway: [WORKER_PORT] })
      // The API server is wherever its own port is: it can be outside of the cluster.
      const api = { dns: [53, 443], neighbor: [443], outside: [443] }
      assert.deepEqual(reached(end(gateway())), { ...none, ...api })
    })

    test('the workers of every group are let in', async () => {
      const made = await render(rig, { values: [join(CHART, 'ci/worker-groups-values.yaml')] })
      for (const name of ['openclaw-worker', 'openclaw-worker-gpu']) {
        const from = end(template('Deployment', name, made))
        assert.ok(isAllowed(made, { from, to: end(gateway()), port: WORKER_PORT }), name)
        assert.ok(!isAllowed(made, { from: stranger, to: from, port: 22 }), name)
      }
    })

    test('without policies everything is reachable, which proves that the evaluation works', async () => {
      const made = await render(rig, { set: ['networkPolicy.enabled=false'] })
      assert.deepEqual(reach(end(gateway()), made, { stranger }), { stranger: PORTS })
    })
  })
})

type Account = KubeObject & { readonly automountServiceAccountToken?: boolean }
type Projected = { readonly projected: { readonly sources: readonly object[] } }
type Probe = {
  readonly httpGet?: { readonly path: string }
  readonly exec?: { readonly command: readonly string[] }
}
type Resources = { readonly resources: { readonly requests: { readonly cpu?: string } } }
type WorkerConfig = {
  readonly gateway: { readonly auth: { readonly token: { source: string; provider: string } } }
  readonly secrets: {
    readonly providers: Readonly<Record<string, { command: string; args: readonly string[] }>>
  }
}

const decoded = ({ data = {} }: KubeObject, key: string): string =>
  Buffer.from(data[key] ?? '', 'base64').toString()
