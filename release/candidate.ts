/** What is known of the commit that is checked out, for the decision whether it may be released. */

import { listUnpinned, readText } from './pinned-files.ts'
import type { GitHub } from './provenance.ts'
import type { Candidate } from './refusals.ts'
import { isClean, listTags, readRevision } from './source.ts'
import { readVersions } from './versions.ts'

export const readCandidate = (env: GitHub): Candidate => {
  const revision = readRevision()
  const { version } = JSON.parse(readText('package.json')) as { readonly version: string }
  return {
    revision,
    version,
    tags: listTags(revision),
    isClean: isClean(),
    versions: readVersions(),
    changelog: readText('CHANGELOG.md'),
    unpinned: listUnpinned(),
    ref: env.GITHUB_REF,
    sha: env.GITHUB_SHA,
  }
}
