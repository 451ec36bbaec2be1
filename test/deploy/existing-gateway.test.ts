/** Follows docs/existing-gateway.md from top to bottom on a gateway that runs without the sidecar. */

import assert from 'node:assert/strict'
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { waitForProcess } from '../kit/wait.ts'
import { freshName, openNamespace, type DeployRig } from './deploy-rig.ts'
import { QUICK, startNodeRig } from './node-rig.ts'

const found = await startNodeRig()
const skip = 'why' in found && found.why

const ROOT = join(import.meta.dirname, '../..')
const PAGE = readFileSync(join(ROOT, 'docs/existing-gateway.md'), 'utf8')
const RUNNING = readFileSync(join(import.meta.dirname, 'running-gateway.yaml'), 'utf8')
const ROLLOUT = ['rollout', 'status', 'deployment/my-gateway', '--timeout=180s']
const WITHIN_MS = 150_000
describe('an existing gateway', { skip }, () => {
  const rig = found as DeployRig
  const namespace = freshName('openclaw-test')
  const at = `--namespace=${namespace}`
  /** Where a reader of the page is: a checkout, with the files that the page names. */
  const directory = join(rig.directory, 'reader')
  let close: () => Promise<void>

  /** What the page says, for this namespace and these images. */
  const localized = (text: string) =>
    text
      .replaceAll(' -n openclaw', ` -n ${namespace}`)
      .replaceAll(' -f sidecar-values.yaml', ` -f sidecar-values.yaml ${QUICK.join(' ')}`)
      .replaceAll('namespace: openclaw,', `namespace: ${namespace},`)
      .replaceAll(
        'repository: openclaw-auth-sidecar',
        'repository: localhost/openclaw-auth-sidecar',
      )
      .replaceAll('repository: ghcr.io/openclaw/openclaw', 'repository: localhost/openclaw')
      .replaceAll('localhost/openclaw, tag: 2026.9.6', 'localhost/openclaw, tag: local')
      .replaceAll('tag: 1.0.0', 'tag: local')
      .replaceAll(
        'image: openclaw-auth-sidecar:1.0.0',
        'image: localhost/openclaw-auth-sidecar:local',
      )

  /** Writes the files and runs the commands of a section; resolves with what they print. */
  const follow = async (heading: string): Promise<string> => {
    const section = sectionOf(heading)
    for (const [, name = '', text = ''] of section.matchAll(FILES)) {
      writeFileSync(join(directory, name), localized(text))
    }
    const commands = [...section.matchAll(COMMANDS)].map(([, text = '']) => localized(text))
    const { code, stdout, stderr } = await rig.shell(`cd ${directory}\n${commands.join('')}`)
    assert.equal(code, 0, `${heading}:\n${stdout}${stderr}`)
    return stdout
  }
  const get = (path: string) =>
    rig.kubectl('get', 'deployment', 'my-gateway', at, `-o=jsonpath=${path}`)
  /** Resolves when the only worker is connected; the gateway itself says so. */
  const connected = () =>
    waitForProcess('the worker is in', WITHIN_MS, async () => {
      const selector = '--selector=app=my-worker'
      const pods = await rig.kubectl('get', 'pods', at, selector, '-o=name')
      const name = pods.trim().slice('pod/'.length)
      const args = ['exec', 'deployment/my-gateway', at, '-c=gateway', '--', ...LIST_NODES]
      const { nodes } = JSON.parse(await rig.kubectl(...args)) as { nodes: readonly Node[] }
      return nodes.some((each) => each.connected === true && each.displayName === name)
    })

  before(async () => {
    mkdirSync(directory)
    for (const name of ['charts', 'docs']) symlinkSync(join(ROOT, name), join(directory, name))
    cpSync(join(ROOT, 'examples'), join(directory, 'examples'), { recursive: true })
    const { data } = /^ {2}openclaw\.json: \|\n(?<data>(?: {4}.*\n)+)/m.exec(RUNNING)?.groups ?? {}
    writeFileSync(join(directory, 'openclaw-before.json'), data ?? '')
    close = await openNamespace(rig, namespace)
    const { code, stderr } = await rig.tryKubectl(['apply', at, '--filename=-'], RUNNING)
    assert.equal(code, 0, stderr)
    await rig.kubectl(...ROLLOUT, at)
  })
  after(() => close?.())

  test('runs without the sidecar, and its worker has the shared token', async () => {
    await connected()
    await follow('Before you begin')
  })

  test('gets its sidecar by the steps of the page, and keeps its own account', async () => {
    await follow('1. Write the values')
    await follow('2. Install what is around the gateway')
    await follow('3. Change the gateway')
    assert.equal(await get('{.spec.template.spec.initContainers[*].name}'), 'auth-sidecar')
    assert.equal(await get('{.spec.template.spec.serviceAccountName}'), 'my-gateway')
    assert.equal(await get('{.status.readyReplicas}'), '1')
  })

  test('has its worker back without a shared token, and can verify everything', async () => {
    await follow('4. Move the workers')
    await connected()
    const text = await follow('5. Verify')
    assert.match(text, /^ECONNREFUSED$/m)
    assert.match(text, /own token.*: admitted/)
    assert.match(text, new RegExp(`k8s-auth-success.*"serviceAccount":"my-worker"`))
  })

  test('is as before once the page is followed back', async () => {
    await follow('Go back')
    assert.equal(await get('{.spec.template.spec.initContainers[*].name}'), '')
    assert.equal(await get('{.status.readyReplicas}'), '1')
  })
})

type Node = { readonly connected?: boolean; readonly displayName?: string }

const LIST_NODES = ['node', '/app/openclaw.mjs', 'nodes', 'status', '--json']

/** A file that the page names right before it, and what is typed. */
const FILES = /^`([\w.-]+)`:\n\n```(?:yaml|json)\n([^]*?)^```$/gm
const COMMANDS = /^```bash\n([^]*?)^```$/gm

const sectionOf = (heading: string): string => {
  const [, text] = PAGE.split(new RegExp(`^#+ ${heading.replaceAll('.', String.raw`\.`)}$`, 'm'))
  assert.ok(text !== undefined, heading)
  return text.split(/^## /m)[0] ?? ''
}
