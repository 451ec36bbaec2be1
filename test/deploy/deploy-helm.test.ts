/** `deploy-helm.sh NAME`: a new token on a fresh install, the existing one on an upgrade. */

import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { keepTrackOf } from '../kit/leftovers.ts'
import { freshName, startDeployRig, removeNamespace, type DeployRig } from './deploy-rig.ts'
import { findTool } from './tools.ts'

const found = await startDeployRig()
const skip = 'why' in found && found.why

const SCRIPT = JSON.stringify(join(import.meta.dirname, '../../deploy-helm.sh'))

describe('deploy-helm.sh', { skip }, () => {
  const rig = found as DeployRig
  const namespace = freshName('openclaw-test')
  const deploy = (args: string, env: Readonly<Record<string, string>> = { NAMESPACE: namespace }) =>
    rig.shell(`exec ${SCRIPT} ${args}`, env)
  const get = (object: string, path: string) =>
    rig.kubectl('get', object, `--namespace=${namespace}`, `-o=jsonpath={${path}}`)
  const token = () => get('secret/foo-openclaw-gateway-token', '.data.token')
  let drawn: string

  before(() => keepTrackOf(() => removeNamespace(rig.api, namespace)))

  test('a fresh install makes the namespace and draws a token', async () => {
    const { code, stdout, stderr } = await deploy('foo --set workers.autoscaling.maxReplicas=3')
    assert.equal(code, 0, stderr)
    assert.match(stdout, /gets a new token/)
    drawn = await token()
    assert.ok(Buffer.from(drawn, 'base64').length >= 32)
  })

  test('a second time it keeps the token, and the values of the first', async () => {
    const { code, stdout, stderr } = await deploy('foo --set workers.autoscaling.minReplicas=2')
    assert.equal(code, 0, stderr)
    assert.match(stdout, /keeps its token/)
    assert.equal(await token(), drawn)
    assert.equal(await get('hpa/foo-openclaw-worker', '.spec.maxReplicas'), '3')
    assert.equal(await get('hpa/foo-openclaw-worker', '.spec.minReplicas'), '2')
  })

  test('a deleted Secret rotates the token', async () => {
    await rig.kubectl('delete', 'secret/foo-openclaw-gateway-token', `--namespace=${namespace}`)
    assert.equal((await deploy('foo')).code, 0)
    assert.notEqual(await token(), drawn)
  })

  test('without a name it prints its usage, and without its tools it names them', async () => {
    for (const args of ['', '--set a=b']) {
      const { code, stderr } = await deploy(args)
      assert.equal(code, 64, args)
      assert.match(stderr, /deploy-helm\.sh NAME/)
    }
    assert.equal((await deploy('--help')).code, 0)
    const bare = join(rig.directory, 'bare')
    mkdirSync(bare)
    for (const name of ['bash', 'dirname', 'readlink']) {
      const tool = findTool(name)
      if ('path' in tool) symlinkSync(tool.path, join(bare, name))
    }
    const { code, stderr } = await rig.shell(`exec "$BASH" ${SCRIPT} foo`, { PATH: bare })
    assert.equal(code, 69)
    assert.match(stderr, /needs helm/)
  })
})
