/** What is known of the commit that is checked out, for the decision whether it may be released. */

import { listUnpinned, readText } from './pinned-files.ts'
import type { Candidate } from './refusals.ts'
import { isClean, listTags } from './source.ts'

const versionOf = (path: string): string =>
  (JSON.parse(readText(path)) as { readonly version: string }).version
const fieldOf = (text: string, name: string): string =>
  new RegExp(`^${name}: "?([^"\\n]+)"?$`, 'm').exec(text)?.[1] ?? ''

export const readCandidate = (): Candidate => {
  const chart = readText('charts/openclaw/Chart.yaml')
  return {
    tags: listTags(),
    isClean: isClean(),
    versions: {
      'package.json': versionOf('package.json'),
      'sidecar/package.json': versionOf('sidecar/package.json'),
      'Chart.yaml': fieldOf(chart, 'version'),
      'appVersion of Chart.yaml': fieldOf(chart, 'appVersion'),
    },
    changelog: readText('CHANGELOG.md'),
    unpinned: listUnpinned(),
  }
}
