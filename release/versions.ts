/** Every place where the version of a release is written. */

import { readText } from './pinned-files.ts'
import { IMAGE } from './product.ts'
import { listFiles } from './source.ts'

type Manifest = {
  readonly version: string
  readonly packages?: Readonly<Record<string, { readonly version?: string }>>
}

const MANIFESTS = ['package.json', 'sidecar/package.json', 'gateway-stub/package.json']
const LOCKFILE = 'package-lock.json'
const CHART = 'charts/openclaw/Chart.yaml'
/** What tells a reader which image to build, load, install or verify. */
const TEXTS = ['*.md', '*.yaml', 'Dockerfile.sidecar', ':!CHANGELOG.md', ':!test']
const IN_TEXT = new RegExp(
  String.raw`(?:\b${IMAGE}:|\b${IMAGE}, tag: |^ *newTag: |^(?:ARG )?VERSION=)(\d+\.\d+\.\d+[\w.-]*)`,
  'gm',
)

/** The versions that a text names; each once. */
export const findVersions = (text: string): readonly string[] => [
  // A digest or the end of a sentence is not part of it.
  ...new Set([...text.matchAll(IN_TEXT)].map(([, version = '']) => version.replace(/\.+$/, ''))),
]

/** Each place, such as `package.json`, with the version that is written there. */
export const readVersions = (): readonly (readonly [string, string])[] => {
  const chart = readText(CHART)
  const lock = JSON.parse(readText(LOCKFILE)) as Manifest
  const texts = listFiles(...TEXTS)
  return [
    ...MANIFESTS.map((path) => [path, (JSON.parse(readText(path)) as Manifest).version] as const),
    [LOCKFILE, lock.version],
    ...MANIFESTS.map((path) => {
      const workspace = path.replace(/\/?package\.json$/, '')
      return [`${LOCKFILE}: ${path}`, lock.packages?.[workspace]?.version ?? 'none'] as const
    }),
    [CHART, fieldOf(chart, 'version')],
    [`${CHART}: appVersion`, fieldOf(chart, 'appVersion')],
    ...texts.flatMap((path) =>
      findVersions(readText(path)).map((version) => [path, version] as const),
    ),
  ]
}

const fieldOf = (text: string, name: string): string =>
  new RegExp(`^${name}: "?([^"\\n]+)"?$`, 'm').exec(text)?.[1] ?? 'none'
