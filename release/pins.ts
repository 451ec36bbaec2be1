/** What a release takes from others by a name that can move: where it is written, and how it is pinned. */

/** One line of a file that names an image or an action. */
export type Reference = {
  readonly kind: 'image' | 'action'
  /** Such as `docker.io/library/node:26-slim` or `actions/checkout`, without its pin. */
  readonly name: string
  /** Of an action: `v6`. */
  readonly tag?: string
  /** A digest or a commit; absent where the name alone is written. */
  readonly pin?: string
}

const DIGEST = 'sha256:[0-9a-f]{64}'
const COMMIT = '[0-9a-f]{40}'
const IMAGE = new RegExp(
  String.raw`(?<=^ARG \w+=|^\s*- |^\s*image: )((?:[\w-]+\.)+[\w-]+\/[\w./-]+:[\w.-]+)(?:@(${DIGEST}))?$`,
  'gm',
)
const ACTION = /(?<=\buses: )([\w-]+\/[\w./-]+)@(\S+?)(?: # (v[\w.]+))?$/gm

/** Every reference of a Dockerfile or a workflow. Actions of the repository itself have no version. */
export const findReferences = (text: string): readonly Reference[] => [
  ...[...text.matchAll(IMAGE)].map(([, name = '', pin]): Reference => ({
    kind: 'image',
    name,
    ...(pin === undefined ? {} : { pin }),
  })),
  ...[...text.matchAll(ACTION)].map(([, name = '', version = '', tag]): Reference => {
    const isPinned = new RegExp(`^${COMMIT}$`).test(version)
    if (!isPinned) return { kind: 'action', name, tag: version }
    return { kind: 'action', name, pin: version, ...(tag === undefined ? {} : { tag }) }
  }),
]

/** The text with the pin of each reference as `resolve` gives it. */
export const pinReferences = (text: string, resolve: (reference: Reference) => string): string =>
  text
    .replace(IMAGE, (_, name: string) => `${name}@${resolve({ kind: 'image', name })}`)
    .replace(ACTION, (_, name: string, version: string, tag: string | undefined) => {
      const named = tag ?? version
      return `${name}@${resolve({ kind: 'action', name, tag: named })} # ${named}`
    })

/** How a reference is written without its pin. */
export const describeReference = ({ name, tag }: Reference): string =>
  tag === undefined ? name : `${name}@${tag}`

type NodeRelease = { readonly version: string; readonly security: boolean }

/** Of Node's own list of releases: the newest security release of each line in `lines`. */
export const findSecurityReleases = (
  releases: readonly NodeRelease[],
  lines: readonly number[],
): Readonly<Record<number, string>> =>
  Object.fromEntries(
    lines.map((line) => {
      // The list begins with the newest.
      const found = releases.find(
        ({ version, security }) => security && version.startsWith(`v${line}.`),
      )
      if (found === undefined)
        throw new Error(`Node's list has no security release of line ${line}`)
      return [line, found.version.slice(1)]
    }),
  )

/** The source of `lib/node-floor.ts` with these releases. */
export const replaceSecurityReleases = (
  source: string,
  releases: Readonly<Record<number, string>>,
): string => {
  const table = Object.entries(releases).map(([line, version]) => `  ${line}: '${version}',\n`)
  const replaced = source.replace(
    /(SECURITY_RELEASES: Readonly<Record<number, string>> = \{\n)[^}]*\}/,
    `$1${table.join('')}}`,
  )
  return replaced
}
