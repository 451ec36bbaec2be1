/** `node release/changelog.ts VERSION`: prints the section of CHANGELOG.md, for the release on GitHub. */

import { readText } from './pinned-files.ts'
import { findSection } from './refusals.ts'

const [version = ''] = process.argv.slice(2)
const section = findSection(readText('CHANGELOG.md'), version)
if (section === undefined) {
  process.stderr.write(`CHANGELOG.md has no section for ${version}\n`)
  process.exitCode = 1
} else {
  process.stdout.write(`${section}\n`)
}
