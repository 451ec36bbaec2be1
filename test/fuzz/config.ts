/** The configuration: any text gives a valid `Config` or a `ConfigError`. */

import { deepStrictEqual, ok } from 'node:assert/strict'
import * as fc from 'fast-check'
import { stringify } from 'yaml'
import { isLoopbackHost } from '@openclaw-k8s/auth-sidecar/config/addresses.ts'
import {
  loadConfig,
  type Loaded,
  type LoadOptions,
} from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { OPTION_PATHS, VARIABLES } from '@openclaw-k8s/auth-sidecar/config/options.ts'
import { ConfigError } from '@openclaw-k8s/auth-sidecar/config/config-error.ts'
import { toDocument } from '@openclaw-k8s/auth-sidecar/config/schema.ts'
import { mutate, mutation } from './bytes.ts'
import { promiseOf, pureTarget, type Target } from './target.ts'

export type Load = (options: LoadOptions) => Loaded

const LIST = [{ namespace: 'openclaw', serviceAccount: 'openclaw-worker' }]

/** What might be written for some option. */
const value: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    true,
    false,
    null,
    0,
    1,
    -1,
    1.5,
    1e21,
    Number.MAX_SAFE_INTEGER,
    '',
    '*',
    '0s',
    '10s',
    '576h',
    '1KiB',
    '25MiB',
    '20/s',
    'enforce',
    'report',
    'stream',
    'openclaw',
    '127.0.0.1:0',
    '[::1]:1',
    '0.0.0.0:18443',
    'ws://127.0.0.1:1',
    'ws://[::1]:1',
    'ws://localhost:1',
    'ws://10.0.0.1:1',
    'ws://127.0.0.1@evil:1',
    'ws://127.1:9',
    'ws://evil',
    'ws://127.0.0.1.evil:1',
    'ws://[::ffff:10.0.0.1]:1',
    'ws://0x7f.1:1',
    'ws://127.0.0.1\\@evil',
    'wss://127.0.0.1',
    'https://api:443',
    'http://api',
    [],
    [''],
    ['a'],
    ['a', 'a'],
    {},
    LIST,
    [{}],
    [{ namespace: '*', serviceAccount: '*' }],
    [{ namespace: '', serviceAccount: '' }],
    [null],
  ),
  fc.string({ maxLength: 12 }),
  fc.jsonValue({ maxDepth: 2 }),
)

const STRANGE_KEYS = ['__proto__', 'constructor', 'prototype', 'toString', '<<', 'k8strust', '']

/** A tree of sections, out of paths of options and of strangers. */
type Entry = { readonly path: readonly string[]; readonly value: unknown }

const entry: fc.Arbitrary<Entry> = fc.record({
  path: fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(...OPTION_PATHS).map((path) => path.split('.')) },
    {
      weight: 1,
      arbitrary: fc
        .tuple(fc.constantFrom(...OPTION_PATHS), fc.constantFrom(...STRANGE_KEYS))
        .map(([path, key]) => [...path.split('.').slice(0, -1), key]),
    },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        ['__proto__', 'polluted'],
        ['constructor', 'prototype', 'polluted'],
        ['gateway', '__proto__', 'url'],
        ['gateway', 'auth', 'k8sTrust', 'enabled'],
        ['gateway', 'port'],
        ['gateway', 'bind'],
      ),
    },
  ),
  value,
})

const put = (tree: unknown, [key, ...rest]: readonly string[], leaf: unknown): unknown => {
  if (key === undefined) return leaf
  const isTree = typeof tree === 'object' && tree !== null && !Array.isArray(tree)
  const entries = Object.entries(isTree ? tree : {})
  const own = entries.find(([name]) => name === key)?.[1]
  const others = entries.filter(([name]) => name !== key)
  // Unlike an assignment, this makes `__proto__` a member.
  return Object.fromEntries([...others, [key, put(own, rest, leaf)]])
}

/** None or one most of the time. */
const few = <T>(each: fc.Arbitrary<T>, lengthMax: number): fc.Arbitrary<T[]> =>
  fc.oneof(
    { weight: 3, arbitrary: fc.array(each, { maxLength: 1 }) },
    { weight: 1, arbitrary: fc.array(each, { maxLength: lengthMax }) },
  )

/** Most documents are valid except for a few entries; otherwise there would never be a valid one. */
const tree = fc
  .tuple(
    fc.nat(4).map((n) => n > 0),
    few(entry, 4),
  )
  .map(([isListed, entries]) =>
    entries.reduce<unknown>(
      (whole, { path, value: leaf }) => put(whole, path, leaf),
      isListed ? { k8sTrust: { allowedIdentities: LIST } } : {},
    ),
  )

const document: fc.Arbitrary<string> = fc.oneof(
  { weight: 6, arbitrary: tree.map((each) => stringify(each)) },
  { weight: 3, arbitrary: tree.map((each) => JSON.stringify(each)) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(tree, fc.array(mutation, { maxLength: 3 }))
      .map(([each, by]) => mutate(Buffer.from(stringify(each)), by).toString()),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      'a: &a [*a]',
      'a: &a {<<: *a}',
      '--- a\n--- b',
      '!!js/function "x"',
      '%YAML 1.1\n---\na: 1',
      '? {a: 1}\n: 2',
      `a: ${'['.repeat(5000)}`,
      'a: &a x\nb: [*a,*a]',
      '"__proto__": {polluted: true}',
      '<<: {polluted: true}',
      '\uFEFFa: 1',
      '\0',
      'k8sTrust: !!map {__proto__: {enabled: false}}',
    ),
  },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 60 }) },
)

const textOf = (each: unknown): string =>
  typeof each === 'string' ? each : (JSON.stringify(each) ?? '')
const written = value.map(textOf)

const sources = fc.record({
  text: fc.option(document, { nil: undefined, freq: 5 }),
  env: few(
    fc.tuple(
      fc.oneof(
        { weight: 6, arbitrary: fc.constantFrom(...VARIABLES) },
        {
          weight: 1,
          arbitrary: fc.constantFrom(
            'AUTH_SIDECAR___PROTO__',
            'AUTH_SIDECAR_PORT',
            'AUTH_SIDECAR_',
            '__proto__',
          ),
        },
      ),
      written,
    ),
    2,
  ).map((pairs) => Object.fromEntries(pairs)),
  flags: few(
    fc
      .tuple(
        fc.oneof(
          fc.constantFrom(...OPTION_PATHS),
          fc.constantFrom('__proto__.polluted', '__proto__', 'a', ''),
        ),
        written,
      )
      .map(([path, text]) => `${path}=${text}`),
    2,
  ),
})

type Sources = {
  readonly text: string | undefined
  readonly env: Readonly<Record<string, string>>
  readonly flags: readonly string[]
}

const PROTOTYPE = Object.getOwnPropertyNames(Object.prototype).sort()

/** The configuration, or nothing for a `ConfigError`; whatever else is thrown goes on. */
const load = (subject: Load, { text, env, flags }: Sources): Loaded | undefined => {
  try {
    return subject({
      ...(text === undefined ? {} : { file: 'config.yaml' }),
      env,
      flags,
      readFile: () => text ?? '',
    })
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    ok(error.problems.length > 0)
    return undefined
  }
}

const plainObjects = (each: unknown): readonly object[] => {
  if (typeof each !== 'object' || each === null) return []
  return [each, ...Object.values(each).flatMap(plainObjects)]
}

export const configTarget = (subject: Load = loadConfig): Target =>
  pureTarget('config', [
    promiseOf(
      { promise: 'any text is a configuration or a ConfigError', runs: 37 },
      sources,
      (each) => void load(subject, each),
    ),
    promiseOf(
      { promise: 'no text changes a prototype, or gives an option its own', runs: 37 },
      sources,
      (each) => {
        const loaded = load(subject, each)
        deepStrictEqual(Object.getOwnPropertyNames(Object.prototype).sort(), PROTOTYPE)
        for (const object of plainObjects(loaded?.config)) {
          const prototype: unknown = Object.getPrototypeOf(object)
          ok(prototype === Object.prototype || prototype === Array.prototype)
        }
      },
    ),
    promiseOf(
      { promise: 'a gateway is on loopback unless the option allows another', runs: 75 },
      fc.tuple(
        sources,
        fc.oneof(
          value.map(textOf),
          fc.webUrl().map((url) => url.replace(/^https?/, 'ws')),
        ),
      ),
      ([each, url]) => {
        const loaded = load(subject, { ...each, flags: [...each.flags, `gateway.url=${url}`] })
        if (loaded === undefined || loaded.config.gateway.allowRemoteGateway) return
        ok(isLoopbackHost(new URL(loaded.config.gateway.url).hostname), loaded.config.gateway.url)
      },
    ),
    promiseOf(
      { promise: 'while trust is on there is an allow-list, and no name in it is empty', runs: 50 },
      sources,
      (each) => {
        const { k8sTrust } = load(subject, each)?.config ?? {}
        if (k8sTrust === undefined || !k8sTrust.enabled) return
        ok(k8sTrust.allowedIdentities.length > 0)
        for (const identity of k8sTrust.allowedIdentities) {
          ok(identity.namespace !== '' && identity.serviceAccount !== '')
          ok(identity.allowedRoles.length > 0)
        }
      },
    ),
    promiseOf(
      { promise: 'a configuration written out loads again as the same', runs: 37 },
      sources,
      (each) => {
        const loaded = load(subject, each)
        if (loaded === undefined) return
        const text = JSON.stringify(toDocument(loaded.config))
        deepStrictEqual(load(subject, { text, env: {}, flags: [] })?.config, loaded.config)
      },
    ),
  ])
