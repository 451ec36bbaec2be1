/** What a release refuses, and the text that it is published with. */

/** What is known of a commit before it is released. */
export type Candidate = {
  readonly tags: readonly string[]
  readonly isClean: boolean
  /** Each place where the version is written, such as `package.json`. */
  readonly versions: Readonly<Record<string, string>>
  readonly changelog: string
  /** References that can move, one line each. */
  readonly unpinned: readonly string[]
}

/** The section of one version, without its heading; `undefined` where there is none. */
export const findSection = (changelog: string, version: string): string | undefined => {
  const sections = changelog.split(/^## (?=\[)/m).slice(1)
  const found = sections.find((each) => each.startsWith(`[${version}]`))
  // References of links are the end of the file, and part of no section.
  const [text] = found?.slice(found.indexOf('\n')).split(/^\[[^\]]+\]: /m) ?? []
  return text?.trim()
}

/** Why this commit is not released as this version; each is a sentence. */
export const findRefusals = (candidate: Candidate, version: string): readonly string[] => {
  const { tags, isClean, versions, changelog, unpinned } = candidate
  const others = Object.entries(versions).filter(([, each]) => each !== version)
  const section = findSection(changelog, version)
  return [
    ...(tags.includes(`v${version}`) ? [] : [`The commit does not have the tag v${version}.`]),
    ...(isClean ? [] : ['The checkout has changes that are not committed.']),
    ...others.map(([file, each]) => `${file} has the version ${each}, not ${version}.`),
    ...(section === undefined || section === ''
      ? [`CHANGELOG.md has no section for ${version}.`]
      : []),
    ...unpinned.map((each) => `${each} is not pinned: run \`npm run pin\`, and commit it.`),
  ]
}
