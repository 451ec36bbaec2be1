/** Real pods on a real node: workers connect through the Service, `helm test` passes, restarts lose no worker. */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, test } from 'node:test'
import { createAuthority } from '../kit/authority.ts'
import { waitForProcess } from '../kit/wait.ts'
import { keepTrackOf } from '../kit/leftovers.ts'
import { secretCommand } from '../tools/manifests.ts'
import { parseObjects } from './objects.ts'
import { CHART } from './render.ts'
import { freshName, openNamespace, type DeployRig } from './deploy-rig.ts'
import { QUICK, startNodeRig } from './node-rig.ts'
import { findTool } from './tools.ts'

/** Not on the PATH of the sidecar's image. */
const DISTROLESS_NODE = '/nodejs/bin/node'
const WORKERS_WITHIN_MS = 150_000
const GONE_WITHIN_MS = 30_000
const ROLLOUT = '--timeout=180s'
const found = await startNodeRig()
const skip = 'why' in found && found.why

describe('on a node', { skip }, () => {
  const rig = found as DeployRig
  const namespace = freshName('openclaw-test')
  const at = `--namespace=${namespace}`
  const local = `--values=${join(CHART, 'values-local.yaml')}`
  let close: () => Promise<void>

  before(async () => {
    close = await openNamespace(rig, namespace)
    await rig.helm('install', 'openclaw', CHART, at, local, ...QUICK)
  })
  after(() => close?.())

  const rollout = (workload: string) => rig.kubectl('rollout', 'status', workload, at, ROLLOUT)
  const upgrade = async (...flags: readonly string[]): Promise<void> => {
    await rig.helm('upgrade', 'openclaw', CHART, at, local, ...QUICK, ...flags)
    await rollout('statefulset/openclaw-gateway')
  }
  const exec = (container: string, script: string, node = 'node') =>
    rig.kubectl('exec', 'openclaw-gateway-0', at, '-c', container, '--', node, '-e', script)
  const metric = async (series: string): Promise<number> => {
    const path = `/api/v1/namespaces/${namespace}/pods/openclaw-gateway-0:9464/proxy/metrics`
    const { stdout } = await rig.tryKubectl(['get', '--raw', path])
    const line = stdout.split('\n').find((each) => each.startsWith(`${series} `))
    return Number(line?.slice(series.length + 1) ?? Number.NaN)
  }
  const sessions = () => metric(`openclaw_k8s_sessions_active{namespace="${namespace}"}`)
  const connected = (workers: number) =>
    waitForProcess(
      `${workers} workers are in`,
      WORKERS_WITHIN_MS,
      async () => (await sessions()) === workers,
    )
  const workerPods = async (): Promise<readonly string[]> => {
    const selector = '--selector=app.kubernetes.io/name=openclaw,app.kubernetes.io/component=worker'
    return (await rig.kubectl('get', 'pods', at, selector, '-o=name')).trim().split('\n')
  }
  const helmTest = async (): Promise<void> => {
    const { code, stdout, stderr } = await rig.tryHelm('test', 'openclaw', at, '--logs')
    assert.equal(code, 0, stderr)
    assert.match(stdout, /own token.*: admitted/)
    assert.match(stdout, /forged token: signature_invalid/)
  }

  test('the gateway gets ready behind its sidecar', async () => {
    await rollout('statefulset/openclaw-gateway')
  })

  test('helm test passes, through the Service of the cluster', helmTest)

  test('workers connect by themselves, all of them', async () => {
    await connected(1)
    await rig.kubectl('scale', 'deployment/openclaw-worker', '--replicas=3', at)
    await connected(3)
    const known = await exec('gateway', LIST_NODES)
    for (const name of await workerPods())
      assert.ok(known.includes(name.slice('pod/'.length)), known)
  })

  test('a worker whose pod is deleted is cut off at once, and the next one connects', async () => {
    const [pod = ''] = await workerPods()
    const earlier = await metric('openclaw_k8s_auth_attempts_total{result="success"}')
    await rig.kubectl('delete', pod, at, '--wait=false')
    await waitForProcess('the next one', WORKERS_WITHIN_MS, async () => {
      const attempts = await metric('openclaw_k8s_auth_attempts_total{result="success"}')
      return attempts > earlier && (await sessions()) === 3
    })
    await waitForProcess('its device is forgotten', GONE_WITHIN_MS, async () => {
      const known = await exec('gateway', LIST_NODES)
      return !known.includes(pod.slice('pod/'.length))
    })
  })

  test('the containers run as the user the chart says, on a read-only root', async () => {
    const token = '/var/run/secrets/kubernetes.io/serviceaccount/token'
    const script = `console.log(JSON.stringify({
      uid: process.getuid(),
      token: fs.existsSync('${token}'),
      write: (() => { try { fs.writeFileSync('/file', '') } catch ({ code }) { return code } })(),
    }))`
    const gateway = JSON.parse(await exec('gateway', script)) as object
    const sidecar = JSON.parse(await exec('auth-sidecar', script, DISTROLESS_NODE)) as object
    assert.deepEqual(gateway, { uid: 1000, token: false, write: 'EROFS' })
    assert.deepEqual(sidecar, { uid: 65_532, token: true, write: 'EROFS' })
  })

  test('the Control UI is on the pod, and the Service relays no HTTP', async () => {
    const kubectl = findTool('kubectl')
    assert.ok('path' in kubectl)
    const args = ['port-forward', at, 'statefulset/openclaw-gateway', ':18789']
    const forward = spawn(kubectl.path, args, { stdio: ['ignore', 'pipe', 'ignore'] })
    const end = keepTrackOf(async () => forward.kill())
    for await (const line of createInterface(forward.stdout)) {
      const [, port] = /127\.0\.0\.1:(\d+)/.exec(line) ?? []
      if (port === undefined) continue
      const answer = await fetch(`http://127.0.0.1:${port}/`)
      assert.equal(answer.status, 200)
      assert.match(answer.headers.get('content-type') ?? '', /^text\/html/)
      break
    }
    await end()
    const path = `/api/v1/namespaces/${namespace}/services/openclaw-gateway:18789/proxy/`
    const { code, stdout, stderr } = await rig.tryKubectl(['get', '--raw', path])
    assert.notEqual(code, 0, stdout)
    assert.doesNotMatch(stdout + stderr, /<html/)
  })

  test('a gateway whose pod is deleted sends its workers away first, and they come back', async () => {
    const log = rig.kubectl(
      'logs',
      'openclaw-gateway-0',
      at,
      '-c=auth-sidecar',
      '--follow',
      '--tail=1',
    )
    await rig.kubectl('delete', 'pod', 'openclaw-gateway-0', at)
    const lines = (await log).split('\n')
    const place = (part: string) => lines.findIndex((line) => line.includes(part))
    assert.ok(place('"draining"') >= 0, lines.join('\n'))
    assert.ok(place('"drained"') > place('"draining"'))
    assert.ok(
      place('"drained"') < place('the gateway closed the connection with 1012'),
      'the gateway is the last to go',
    )
    await rollout('statefulset/openclaw-gateway')
    await connected(3)
  })

  test('a gateway in trusted-proxy mode takes them as well', async () => {
    await upgrade('--set=sidecar.config.gateway.auth.mode=trusted-proxy')
    await helmTest()
    await connected(3)
  })

  test('with a certificate they connect over TLS, and check it', async () => {
    const authority = await createAuthority()
    const hosts = ['openclaw-gateway', `openclaw-gateway.${namespace}.svc`]
    const { cert, key } = await authority.issue({ commonName: 'openclaw-gateway', hosts })
    const files = { 'tls.crt': cert, 'tls.key': key, 'ca.crt': authority.cert }
    const flags = Object.entries(files).map(([name, text]) => {
      writeFileSync(join(rig.directory, name), text)
      return `--from-file=${join(rig.directory, name)}`
    })
    await rig.kubectl('create', 'secret', 'generic', 'certificate', at, ...flags)
    await upgrade('--set=tls.existingSecret=certificate')
    await helmTest()
    await rollout('deployment/openclaw-worker')
    await connected(3)
  })

  test('with the manifests and these images they connect too', async () => {
    await rig.helm('uninstall', 'openclaw', at, '--wait')
    await rig.kubectl('delete', 'secrets', at, '--all')
    const moved = (text: string) =>
      text
        .replaceAll(/\bnamespace: openclaw$/gm, `namespace: ${namespace}`)
        .replaceAll('name: openclaw:', `name: ${namespace}:`)
    const read = (name: string) => readFileSync(join(MANIFESTS, `${name}.yaml`), 'utf8')
    const command = secretCommand(read('gateway-config')).replace('-n openclaw', `-n ${namespace}`)
    assert.equal((await rig.shell(command)).code, 0)
    const directory = join(rig.directory, 'local')
    mkdirSync(directory)
    for (const name of RESOURCES) writeFileSync(join(directory, `${name}.yaml`), moved(read(name)))
    writeFileSync(join(directory, 'kustomization.yaml'), KUSTOMIZATION)
    const text = await rig.kubectl('kustomize', directory)
    assert.ok(parseObjects(text).length > 10)
    const applied = await rig.tryKubectl(['apply', '--filename=-'], text)
    assert.equal(applied.code, 0, applied.stderr)
    await rollout('statefulset/openclaw-gateway')
    await connected(1)
  })
})

const LIST_NODES =
  "console.log(require('node:child_process').execFileSync('node', " +
  "['/app/openclaw.mjs', 'nodes', 'list', '--json'], { encoding: 'utf8' }))"

const MANIFESTS = join(import.meta.dirname, '../../manifests')
const RESOURCES = ['rbac', 'gateway-config', 'gateway', 'worker', 'networkpolicy']
const KUSTOMIZATION = JSON.stringify({
  resources: RESOURCES.map((name) => `${name}.yaml`),
  images: [
    { name: 'ghcr.io/openclaw/openclaw', newName: 'localhost/openclaw', newTag: 'local' },
    {
      name: 'openclaw-auth-sidecar',
      newName: 'localhost/openclaw-auth-sidecar',
      newTag: 'local',
    },
  ],
})
