/** Bundles the sidecar and its imports into one executable file, with all licenses next to it. */

import { chmod, readdir, readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { build, type Plugin } from 'esbuild'
import * as undici from 'undici'

const HERE = import.meta.dirname
/** Also the name of the command: the file is on the image's PATH. */
const NAME = 'auth-sidecar'
const UNDICI_PARTS = join(HERE, 'undici-parts.js')
/**
 * Packages that others require but that are never used here, so nobody needs to load or read them.
 */
const LEFT_OUT = [
  // fastify's, for routes with schemas, for tests and for the versions of plugins.
  '@fastify/ajv-compiler',
  '@fastify/fast-json-stringify-compiler',
  'light-my-request',
  'semver',
  // prom-client's, for exemplars.
  '@opentelemetry/api',
  // pino's, for transports.
  'thread-stream',
]

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    /** Where the bundle finds Node; an image without a shell has no `env` either. */
    node: { type: 'string', default: '/usr/bin/env node' },
  },
})
const directory = resolve(positionals[0] ?? join(HERE, '../node_modules/.cache/auth-sidecar'))

/** An imported name that no part exports fails the build. */
const undiciInParts: Plugin = {
  name: 'undici in parts',
  setup(bundle) {
    bundle.onResolve({ filter: /^undici$/ }, () => ({ path: UNDICI_PARTS }))
  },
}

/** The bundle is one file: what this module reads in a checkout is part of it. */
const pageInside: Plugin = {
  name: 'the files of the status page',
  setup(bundle) {
    bundle.onLoad({ filter: /\/edge\/page-files\.ts$/ }, async ({ path }) => {
      const { PAGE } = (await import(path)) as { readonly PAGE: unknown }
      return { contents: `export const PAGE = ${JSON.stringify(PAGE)}` }
    })
  },
}

await checkParts(UNDICI_PARTS, undici)
const { metafile } = await build({
  absWorkingDir: HERE,
  entryPoints: ['src/main.ts'],
  outfile: join(directory, NAME),
  bundle: true,
  platform: 'node',
  target: 'node26',
  // An ES module that imports `node:http` makes Node load its own fetch and WebSocket: 10 MiB.
  format: 'cjs',
  banner: { js: `#!${values.node}` },
  // Names stay, so that stack traces can be read.
  minifyWhitespace: true,
  minifySyntax: true,
  legalComments: 'none',
  alias: Object.fromEntries(LEFT_OUT.map((name) => [name, './left-out.cjs'])),
  plugins: [undiciInParts, pageInside],
  metafile: true,
})
await chmod(join(directory, NAME), 0o755)
await writeFile(join(directory, 'LICENSE'), await readFile(join(HERE, '../LICENSE')))
await writeFile(
  join(directory, 'THIRD_PARTY_LICENSES'),
  await licences(Object.keys(metafile.inputs)),
)

/**
 * A part that has moved, or differs from the package's export, must fail the build, not surface
 * later.
 */
async function checkParts(file: string, whole: Readonly<Record<string, unknown>>): Promise<void> {
  const parts = (await import(file)) as Readonly<Record<string, unknown>>
  for (const [name, part] of Object.entries(parts)) {
    if (part === undefined || part !== whole[name]) throw new Error(`${file}: ${name} is another`)
  }
}

/** The text of the licenses, which anyone who passes the code on must include. */
async function licences(inputs: readonly string[]): Promise<string> {
  const packages = inputs
    .map((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0])
    .filter((path) => path !== undefined)
  const texts: string[] = []
  for (const path of [...new Set(packages)].toSorted())
    texts.push(await licence(resolve(HERE, path)))
  return texts.join(`\n${'-'.repeat(80)}\n\n`)
}

async function licence(directoryOfPackage: string): Promise<string> {
  const read = (file: string) => readFile(join(directoryOfPackage, file), 'utf8')
  const manifest = JSON.parse(await read('package.json')) as Record<string, string>
  const files = (await readdir(directoryOfPackage)).filter((file) => /^licen[cs]e/i.test(file))
  const texts = await Promise.all(files.map(read))
  return [`${manifest['name']} ${manifest['version']} (${manifest['license']})`, ...texts].join(
    '\n\n',
  )
}
