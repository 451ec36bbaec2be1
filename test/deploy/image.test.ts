/** The image as it is built: its metadata, its content, and that it runs with nothing else. */

import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test, type TestContext } from 'node:test'
import { startGatewayStub, type GatewayStubOptions } from '@openclaw-k8s/gateway-stub'
import { version } from '@openclaw-k8s/auth-sidecar/version.ts'
import { waitForProcess } from '../kit/wait.ts'
import { startKubeApi } from '../kit/kube-api.ts'
import { createPairedDevices } from '../kit/paired-devices.ts'
import { closed, nextMessage, openWorker } from '../kit/worker-client.ts'
import { buildImage, type Image } from './image-build.ts'
import { runContainer } from './image-container.ts'

const CONFIG = '/etc/auth-sidecar'
const SECRET = 'the-secret-of-the-gateway-itself'
const READY_MS_MAX = 15_000

let image: Image
/** A configuration's directory, readable by the image's user. */
const directoryOf = (files: Readonly<Record<string, string>>): string => {
  const directory = mkdtempSync(join(image.temporary, 'config-'))
  chmodSync(image.temporary, 0o755)
  chmodSync(directory, 0o755)
  for (const [name, content] of Object.entries(files)) writeFileSync(join(directory, name), content)
  return directory
}
const run = (command: readonly string[], files: Readonly<Record<string, string>> = {}) =>
  runContainer(image, directoryOf(files), command).exited
const commandOf = (...args: readonly string[]) => [...image.config.Entrypoint, ...args]

/** The image's own command line between an API server and a gateway. */
const serve = async (
  t: TestContext,
  gatewayOptions: GatewayStubOptions,
  protocol: Readonly<Record<string, unknown>>,
) => {
  const api = await startKubeApi()
  const gateway = await startGatewayStub(gatewayOptions)
  const directory = directoryOf({ secret: SECRET, seed: 'a-seed-of-more-than-sixteen-bytes' })
  const { caFile, tokenFile } = await api.files(directory)
  for (const file of [caFile, tokenFile]) chmodSync(file, 0o644)
  const config = {
    listen: { workers: '127.0.0.1:0', admin: '127.0.0.1:0' },
    gateway: { url: gateway.url, ...protocol },
    kubernetes: {
      apiServer: api.url,
      caFile: `${CONFIG}/ca.crt`,
      tokenFile: `${CONFIG}/token`,
    },
    k8sTrust: { allowedIdentities: [{ namespace: 'openclaw', serviceAccount: 'openclaw-worker' }] },
  }
  writeFileSync(join(directory, 'config.yaml'), JSON.stringify(config))
  const sidecar = runContainer(image, directory, [...image.config.Entrypoint, ...image.config.Cmd])
  t.after(async () => {
    await sidecar.kill()
    await gateway.close()
    await api.stop()
  })
  const listening = JSON.parse(await sidecar.logged('"listening"')) as Record<string, string>
  const ask = (path: string) => fetch(`http://${listening['admin']}${path}`)
  await waitForProcess('the sidecar', READY_MS_MAX, async () => (await ask('/readyz')).ok)
  /** Another command in the same container, as a hook or an operator runs it. */
  const exec = (name: string) => {
    const found = [
      '--config',
      `${CONFIG}/config.yaml`,
      '--set',
      `listen.admin=${listening['admin']}`,
    ]
    return runContainer(image, directory, commandOf(name, ...found)).exited
  }
  return { api, gateway, sidecar, ask, exec, url: `ws://${listening['workers']}` }
}

describe('the image', () => {
  before(async () => {
    image = await buildImage()
  })

  test('says as whom it runs, what it runs and what it is', () => {
    const { config } = image
    assert.equal(config.User, '65532:65532')
    assert.equal(config.WorkingDir, '/app')
    assert.deepEqual(config.Entrypoint, ['auth-sidecar'])
    assert.deepEqual(config.Cmd, ['serve', '--config', `${CONFIG}/config.yaml`])
    assert.deepEqual(Object.keys(config.ExposedPorts).toSorted(), ['18443/tcp', '9464/tcp'])
    assert.equal(config.Volumes, undefined, 'it needs no place to write to')
    assert.equal(image.healthcheck, undefined, 'the probes of its pod look after it')
    const labels = Object.entries(config.Labels).filter(([name]) => name.startsWith('org.'))
    assert.deepEqual(Object.fromEntries(labels), {
      'org.opencontainers.image.title': 'openclaw-auth-sidecar',
      'org.opencontainers.image.description':
        'Lets OpenClaw workers into their gateway by their Kubernetes ServiceAccount token',
      'org.opencontainers.image.licenses': 'MIT',
      'org.opencontainers.image.version': version.version,
      'org.opencontainers.image.revision': 'unknown',
      'org.opencontainers.image.base.name': image.baseName,
    })
  })

  test('adds one program and its licenses to its base, and nothing that is only for building', () => {
    assert.deepEqual(image.files, ['app/LICENSE', 'app/THIRD_PARTY_LICENSES', 'app/auth-sidecar'])
    const program = readFileSync(join(image.root, 'app/auth-sidecar'), 'utf8')
    assert.match(program, /^#!\/nodejs\/bin\/node\n/)
    for (const shell of ['bin/sh', 'bin/bash', 'bin/busybox', 'usr/bin/env']) {
      assert.equal(existsSync(join(image.root, shell)), false, shell)
    }
  })

  test('runs as a user without rights, on a root nobody can write to', async () => {
    const look = `
      const { writeFileSync } = require('node:fs')
      const wrote = ['/app/x', '/tmp/x', '/etc/auth-sidecar/x'].map((path) => {
        try { return writeFileSync(path, '') } catch ({ code }) { return code }
      })
      const { pid, getuid, getgid, getgroups, cwd } = process
      console.log(JSON.stringify([pid, getuid(), getgid(), getgroups(), cwd(), wrote]))`
    const { code, stdout, stderr } = await run(['/nodejs/bin/node', '-e', look])
    assert.equal(code, 0, stderr)
    const wrote = ['EROFS', 'EROFS', 'EROFS']
    assert.deepEqual(JSON.parse(stdout), [1, 65_532, 65_532, [65_532], '/app', wrote])
  })

  test('has every command under the one name, with the exit codes of a checkout', async () => {
    const good =
      'k8sTrust: { allowedIdentities: [{ namespace: openclaw, serviceAccount: worker }] }'
    const files = {
      'good.yaml': `gateway: { protocol: stream }\n${good}\n`,
      'bad.yaml': 'gatway: {}',
    }
    const [told, accepted, refused, unknown] = await Promise.all([
      run(commandOf('version')),
      run(commandOf('check-config', '--config', `${CONFIG}/good.yaml`), files),
      run(commandOf('check-config', '--config', `${CONFIG}/bad.yaml`), files),
      run(commandOf('sevre')),
    ])
    assert.deepEqual(told, { code: 0, stdout: `${version.version}\n`, stderr: '' })
    assert.equal(accepted.code, 0, accepted.stderr)
    assert.equal(refused.code, 78)
    assert.match(refused.stderr, /gatway .*: This option does not exist\./)
    assert.equal(unknown.code, 64)
  })

  test('relays a worker, sends it away when the hook says so, and leaves with 0 when told', async (t) => {
    const { api, ask, exec, gateway, sidecar, url } = await serve(t, {}, { protocol: 'stream' })
    assert.equal((await ask('/livez')).status, 200)
    const pod = api.createPod({
      namespace: 'openclaw',
      name: 'worker-a',
      serviceAccount: 'openclaw-worker',
      ips: ['127.0.0.11'],
      nodeName: 'node-1',
    })
    const token = api.mintToken({ pod, audiences: ['openclaw-gateway'] })
    const worker = await openWorker({ url, token, localAddress: '127.0.0.11' })
    worker.send('hello')
    assert.equal((await nextMessage(worker)).text, 'hello')
    const [handshake] = gateway.handshakes
    assert.equal(handshake?.headers['x-openclaw-k8s-pod-name'], 'worker-a')
    const drained = await exec('drain')
    assert.deepEqual(drained, { code: 0, stdout: 'drained: 1 stream closed\n', stderr: '' })
    assert.equal((await closed(worker)).code, 1012)
    sidecar.signal('SIGTERM')
    const { code, stdout } = await sidecar.exited
    assert.equal(code, 0)
    assert.match(stdout, /"event":"k8s-auth-success"/)
  })

  test('speaks with a gateway of the openclaw protocol', async (t) => {
    const { api, ask, exec } = await serve(t, createPairedDevices(SECRET).gateway, {
      protocol: 'openclaw',
      auth: { mode: 'token', secretFile: `${CONFIG}/secret` },
      deviceSeedFile: `${CONFIG}/seed`,
    })
    assert.match(await (await ask('/readyz?verbose')).text(), /gateway/)
    api.createServiceAccount('openclaw', 'openclaw-worker')
    const { code, stdout } = await exec('doctor')
    assert.equal(code, 0, stdout)
  })
})
