/** `npm run pin`: pins base images and actions, with a network. `-- --check` only tells what is not pinned. */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { SECURITY_RELEASES } from '@openclaw-k8s/auth-sidecar/lib/node-floor.ts'
import { mustRun } from '../test/deploy/tools.ts'
import { listUnpinned, PINNED_FILES, readText } from './pinned-files.ts'
import {
  describeReference,
  findReferences,
  findSecurityReleases,
  pinReferences,
  replaceSecurityReleases,
  type Reference,
} from './pins.ts'
import { buildGoTool } from './tools.ts'

const ROOT = join(import.meta.dirname, '..')
const NODE_FLOOR = 'sidecar/src/lib/node-floor.ts'
const NODE_RELEASES = 'https://nodejs.org/dist/index.json'
const ANSWER_MS_MAX = 60_000

const say = (text: string): void => void process.stdout.write(`${text}\n`)

const check = (): void => {
  const unpinned = listUnpinned()
  for (const line of unpinned) say(`${line} is not pinned`)
  say(
    unpinned.length === 0
      ? 'everything is pinned'
      : 'run `npm run pin` where there is a network, and commit what it writes',
  )
  process.exitCode = unpinned.length === 0 ? 0 : 1
}

/** An action by the commit of its tag: an annotated tag is followed to it. */
const resolveAction = ({ name, tag = '' }: Reference): string => {
  const [owner, repository] = name.split('/')
  const url = `https://github.com/${owner}/${repository}`
  const refs = [`refs/tags/${tag}`, `refs/tags/${tag}^{}`]
  const lines = execFileSync('git', ['ls-remote', url, ...refs], {
    encoding: 'utf8',
    timeout: ANSWER_MS_MAX,
  })
  const commit = lines.trimEnd().split('\n').at(-1)?.split('\t')[0] ?? ''
  if (!/^[0-9a-f]{40}$/.test(commit)) throw new Error(`${url} has no tag ${tag}`)
  return commit
}

const resolveImage = async ({ name }: Reference): Promise<string> => {
  const digest = await mustRun({ path: await buildGoTool('crane'), args: ['digest', name] })
  return digest.trim()
}

const pin = async (): Promise<void> => {
  const resolved = new Map<string, string>()
  for (const reference of PINNED_FILES.flatMap((path) => findReferences(readText(path)))) {
    const key = describeReference(reference)
    if (resolved.has(key)) continue
    const found =
      reference.kind === 'image' ? await resolveImage(reference) : resolveAction(reference)
    resolved.set(key, found)
    say(`${key} is ${found}`)
  }
  const response = await fetch(NODE_RELEASES, { signal: AbortSignal.timeout(ANSWER_MS_MAX) })
  if (!response.ok) throw new Error(`${NODE_RELEASES} answered ${response.status}`)
  const releases = (await response.json()) as Parameters<typeof findSecurityReleases>[0]
  const floors = findSecurityReleases(releases, Object.keys(SECURITY_RELEASES).map(Number))
  say(`the last security releases of Node.js are ${Object.values(floors).join(', ')}`)
  // Nothing is written before everything is known.
  for (const path of PINNED_FILES) {
    const write = (reference: Reference) => resolved.get(describeReference(reference)) ?? ''
    writeFileSync(join(ROOT, path), pinReferences(readText(path), write))
  }
  writeFileSync(join(ROOT, NODE_FLOOR), replaceSecurityReleases(readText(NODE_FLOOR), floors))
}

const { values } = parseArgs({ options: { check: { type: 'boolean', default: false } } })
if (values.check) check()
else await pin()
