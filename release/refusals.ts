/** What a release refuses, and the text that it is published with. */

/** What is known of a commit before it is released. */
export type Candidate = {
  readonly revision: string
  /** The version that `package.json` has. */
  readonly version: string
  readonly tags: readonly string[]
  readonly isClean: boolean
  /** Each place where the version is written, such as `package.json`, and what is written there. */
  readonly versions: readonly (readonly [string, string])[]
  readonly changelog: string
  /** References that can move, one line each. */
  readonly unpinned: readonly string[]
  /** For what a workflow of GitHub runs: `refs/tags/v1.2.3`. */
  readonly ref?: string | undefined
  readonly sha?: string | undefined
}

/** Semantic, and the tag of an image: that has no `+`. */
const VERSION = /^\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?$/

/** The section of one version, without its heading; `undefined` where there is none. */
export const findSection = (changelog: string, version: string): string | undefined => {
  const sections = changelog.split(/^## (?=\[)/m).slice(1)
  const found = sections.find((each) => each.startsWith(`[${version}]`))
  // References of links are the end of the file, and part of no section.
  const [text] = found?.slice(found.indexOf('\n')).split(/^\[[^\]]+\]: /m) ?? []
  return text?.trim()
}

/** Why this commit is not released; each is a sentence. */
export const findRefusals = (candidate: Candidate): readonly string[] => {
  const { revision, version, tags, isClean, versions, changelog, unpinned } = candidate
  const others = versions.filter(([, each]) => each !== version)
  const section = findSection(changelog, version)
  return [
    ...(VERSION.test(version) ? [] : [`The version ${version} is not like 1.2.3 or 1.2.3-rc.1.`]),
    ...(tags.includes(`v${version}`) ? [] : [`The commit does not have the tag v${version}.`]),
    ...findOther('ref', candidate.ref, `refs/tags/v${version}`),
    ...findOther('commit', candidate.sha, revision),
    ...(isClean ? [] : ['The checkout has changes that are not committed.']),
    ...others.map(([file, each]) => `${file} has the version ${each}, not ${version}.`),
    ...(section === undefined || section === ''
      ? [`CHANGELOG.md has no section for ${version}.`]
      : []),
    ...unpinned.map((each) => `${each} is not pinned: run \`npm run pin\`, and commit it.`),
  ]
}

/** The workflow signs for its own ref and commit, so a release of another one would never be verified. */
const findOther = (what: string, actual: string | undefined, expected: string) =>
  actual === undefined || actual === expected
    ? []
    : [`The workflow runs for the ${what} ${actual}, not for ${expected}.`]
