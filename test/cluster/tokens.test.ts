/** The differential test: what the sidecar admits by itself, the API server would admit too. */

import assert from 'node:assert/strict'
import { constants, createHmac, createPublicKey, sign, type KeyObject } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { waitForProcess } from '../kit/wait.ts'
import { encodeToken } from '../kit/kube-tokens.ts'
import type { Json } from './api.ts'
import { AUDIENCE, startClusterRig, WORKER, type ClusterRig, type Pod } from './cluster-rig.ts'
import { startLocalVerdict, type LocalVerdict } from './local-verdict.ts'
import { EDGES, MUTATIONS, type Parts, type Scene } from './mutations.ts'
import { findSigningKey } from './own-cluster.ts'
import { minorOf, readVersion } from './api.ts'
import { stricterOn } from './stricter.ts'

type Sample = { readonly kind: string; readonly token: string; readonly pod: Pod }
type Judged = Sample & { readonly local: string; readonly remote: boolean }

const SPARE = 'openclaw-spare'
const PODS = 20
const FLIPS = 400
const UNDER_WAY = 48

/** What a caller is told who comes while the API server was asked for another one just now. */
const ASKED_ALREADY: ReadonlyMap<string, string> = new Map([
  ['source_address_unconfirmed', 'source_address_mismatch'],
  ['keys_cooldown', 'signing_key_unknown'],
])

describe('tokens', () => {
  let cluster: ClusterRig
  let local: LocalVerdict
  let pods: readonly Pod[]
  let tokens: readonly string[]
  let explained: ReturnType<typeof stricterOn>
  const judged: Judged[] = []

  before(async () => {
    cluster = await startClusterRig()
    explained = stricterOn(minorOf(await readVersion(cluster.api)))
    await cluster.createServiceAccount(SPARE)
    local = await startLocalVerdict(cluster, [WORKER, SPARE])
    pods = await Promise.all(Array.from({ length: PODS }, () => cluster.createPod()))
    tokens = await Promise.all(pods.map((pod) => cluster.mint({ pod })))
    await waitForProcess('the pods', 5000, () =>
      pods.every(({ uid }) => (local.watch.find(uid)?.ips.length ?? 0) > 0),
    )
  })
  after(async () => {
    await local?.stop()
    await cluster?.close()
  })

  /** Ours first: a second later the API server may have forgotten its cached answer. */
  const judge = async (sample: Sample): Promise<Judged> => {
    const verdict = await local.judge(sample.token, sample.pod.ip)
    return { ...sample, local: verdict, remote: await cluster.isAuthenticated(sample.token) }
  }

  const judgeAll = async (samples: Iterable<Sample>): Promise<readonly Judged[]> => {
    const results: Judged[] = []
    const rest = Iterator.from(samples)
    await Promise.all(
      Array.from({ length: UNDER_WAY }, async () => {
        for (const sample of rest) results.push(await judge(sample))
      }),
    )
    judged.push(...results)
    return results
  }

  /** Fails unless ours is the same verdict, or the stricter one where the table says why. */
  const assertStricter = (results: readonly Judged[]) => {
    const looser = results.filter((each) => each.local === 'ok' && !each.remote)
    assert.deepEqual(tally(looser), {}, 'admitted here, refused there')
    const stricter = results.filter((each) => each.local !== 'ok' && each.remote)
    const unexplained = stricter.filter(({ kind }) => !explained.has(kind))
    assert.deepEqual(tally(unexplained), {}, 'refused here, admitted there, and nobody said why')
    for (const { kind, local: code } of stricter) {
      const known = ASKED_ALREADY.get(code) ?? code
      assert.equal(known, explained.get(kind), `${kind}: refused for another reason`)
    }
  }

  test('tokens as the cluster issues them get the same verdict from both', async () => {
    const real = pods.map((pod, index) => ({ kind: 'valid', token: tokens[index] ?? '', pod }))
    const results = await judgeAll(real)
    assert.ok(
      results.every((each) => each.local === 'ok' && each.remote),
      'valid is valid',
    )
    const samples = await Promise.all(
      pods
        .slice(0, 5)
        .flatMap((pod) => [
          sample('for another audience', pod, { pod, audiences: ['another'] }),
          sample('for the API server', pod, { pod, audiences: [] }),
          sample('for two audiences', pod, { pod, audiences: ['another', AUDIENCE] }),
          sample('bound to no pod', pod, {}),
        ]),
    )
    assertStricter(await judgeAll(samples))
  })

  const sample = async (
    kind: string,
    pod: Pod,
    request: Parameters<ClusterRig['mint']>[0],
  ): Promise<Sample> => ({ kind, pod, token: await cluster.mint(request) })

  test('the sidecar knows first that a pod or a ServiceAccount is gone', async () => {
    const deleted = await cluster.createPod()
    const unused = await cluster.createPod()
    const replaced = await cluster.createPod()
    const ending = await cluster.createPod()
    await cluster.createServiceAccount('openclaw-gone')
    const orphan = await cluster.createPod({ serviceAccount: SPARE })
    const kinds = { deleted, 'deleted, never used': unused, replaced, ending, orphan }
    const samples = await Promise.all(
      Object.entries(kinds).map(([kind, pod]) => sample(kind, pod, { pod })),
    )
    await waitForProcess('the pods', 5000, () =>
      samples.every(({ pod }) => (local.watch.find(pod.uid)?.ips.length ?? 0) > 0),
    )
    const used = samples.filter(({ kind }) => !kind.includes('never'))
    for (const { kind, local: verdict, remote } of await judgeAll(used)) {
      assert.ok(verdict === 'ok' && remote, kind)
    }
    await Promise.all([deleted, unused, replaced].map((pod) => cluster.deletePod(pod)))
    await cluster.deletePod(ending, 60)
    await cluster.createPod({ name: replaced.name, ip: replaced.ip })
    await cluster.deleteServiceAccount(SPARE)
    await waitForProcess('the watch to know', 5000, () => {
      const gone = [deleted, unused, replaced].every(({ uid }) => local.watch.isGone(uid))
      const isAccountGone = local.watch.findAccount(cluster.namespace, SPARE) === undefined
      return gone && isAccountGone && local.watch.terminatingForMs(ending.uid) !== undefined
    })
    assertStricter(await judgeAll(samples))
    await cluster.createServiceAccount(SPARE)
    assertStricter(await judgeAll(samples.filter(({ kind }) => kind === 'orphan')))
    await cluster.deletePod(ending)
  })

  test('a token with any one character changed is refused by both', async () => {
    const flipped = Array.from({ length: FLIPS }, (_, n): Sample => {
      const index = n % PODS
      return { kind: 'a flipped character', token: flip(tokens[index] ?? '', n), pod: pods[index]! }
    })
    const results = await judgeAll(flipped)
    assertStricter(results)
    // The unused bits of the last character may change without changing a byte.
    const admitted = results.filter((each) => each.remote)
    for (const { token, pod } of admitted) {
      const original = tokens[pods.indexOf(pod)] ?? ''
      assert.equal(token.slice(0, -1), original.slice(0, -1))
    }
  })

  test('every claim and header field changed, signed and unsigned, and times around the limits', async (t) => {
    const key = findSigningKey(cluster.config)
    if (key === undefined) return t.skip("only with the cluster's own signing key")
    const scene = await lookAround()
    const odd = pods
      .slice(0, 3)
      .flatMap((pod, index) =>
        oddities(tokens[index] ?? '', key).map(([kind, token]) => ({ kind, token, pod })),
      )
    assertStricter(await judgeAll(bend(key, scene)))
    assertStricter(await judgeAll(odd))
    assert.ok(judged.length >= 2000, `${judged.length} tokens`)
    const shown = new Set(
      judged.filter((each) => each.local !== 'ok' && each.remote).map(({ kind }) => kind),
    )
    const stale = [...explained.keys()].filter((kind) => !shown.has(kind))
    assert.deepEqual(stale, [], 'explained, but no longer different')
    const agreed = judged.filter((each) => (each.local === 'ok') === each.remote).length
    process.stdout.write(
      `  ${judged.length} tokens: ${agreed} judged alike, ${judged.length - agreed} stricter here\n`,
    )
  })

  /** Made one by one as they are judged, so that the time limits are still current. */
  function* bend(key: KeyObject, scene: () => Scene): Generator<Sample> {
    for (const [index, pod] of pods.entries()) {
      const original = tokens[index] ?? ''
      const parts = decode(original)
      for (const [kind, mutate] of [...MUTATIONS, ...(index % 4 === 0 ? EDGES : [])]) {
        const bent = mutate(parts, scene())
        const token = encodeToken(bent.header, bent.claims, signWith(key))
        yield { kind, token, pod }
        if (index === 1) yield { kind: `${kind}, unsigned`, token: forge(token, original), pod }
      }
    }
  }

  const lookAround = async (): Promise<() => Scene> => {
    const path = `/api/v1/namespaces/${cluster.namespace}/serviceaccounts/${SPARE}`
    const { metadata } = await cluster.api.must({ method: 'GET', path })
    const { uid } = metadata as { uid: string }
    const other = await cluster.createPod()
    return () => ({
      nowS: Math.floor(Date.now() / 1000),
      otherPod: { name: other.name, uid: other.uid },
      otherAccount: { name: SPARE, uid },
      ownAudience: AUDIENCE,
    })
  }
})

/** How often each kind was refused with each code. */
const tally = (results: readonly Judged[]): Readonly<Record<string, number>> => {
  const counts: Record<string, number> = {}
  for (const { kind, local } of results) {
    const key = `${kind} → ${local}`
    counts[key] = (counts[key] ?? 0) + 1
  }
  return counts
}

const decode = (token: string): Parts => {
  const [head = '', body = ''] = token.split('.')
  const read = (part: string) => JSON.parse(Buffer.from(part, 'base64url').toString()) as Json
  return { header: read(head), claims: read(body) }
}

const signWith =
  (key: KeyObject, hash = 'sha256') =>
  (input: Buffer): Buffer =>
    sign(hash, input, key)

/** The changed header and body with the signature of the true ones. */
const forge = (bent: string, original: string): string =>
  `${bent.slice(0, bent.lastIndexOf('.'))}.${original.slice(original.lastIndexOf('.') + 1)}`

/** Another character at a place that depends on `n` alone. */
const flip = (token: string, n: number): string => {
  const at = (n * 7919) % token.length
  const old = token[at]
  const next = old === 'A' ? 'B' : 'A'
  return token.slice(0, at) + next + token.slice(at + 1)
}

/** Changes beyond single fields: algorithms, encodings, and JSON that parsers disagree on. */
const oddities = (token: string, key: KeyObject): readonly (readonly [string, string])[] => {
  const { header, claims } = decode(token)
  const [head = '', body = '', signature = ''] = token.split('.')
  const pem = createPublicKey(key).export({ type: 'spki', format: 'pem' })
  const withAlg = (alg: string, signer: (input: Buffer) => Buffer) =>
    encodeToken({ ...header, alg }, claims, signer)
  const raw = (headText: string, bodyText: string) => {
    const encode = (text: string) => Buffer.from(text).toString('base64url')
    const input = `${encode(headText)}.${encode(bodyText)}`
    return `${input}.${signWith(key)(Buffer.from(input)).toString('base64url')}`
  }
  const text = JSON.stringify(claims)
  const headText = JSON.stringify(header)
  const twice = (field: string, value: unknown, where: 'first' | 'last') => {
    const member = `${JSON.stringify(field)}:${JSON.stringify(value)}`
    return where === 'first' ? `{${member},${text.slice(1)}` : `${text.slice(0, -1)},${member}}`
  }
  return [
    ['alg: none', withAlg('none', () => Buffer.alloc(0))],
    ['alg: HS256', withAlg('HS256', (input) => createHmac('sha256', pem).update(input).digest())],
    ['alg: RS384', withAlg('RS384', signWith(key, 'sha384'))],
    ['alg: RS512', withAlg('RS512', signWith(key, 'sha512'))],
    [
      'alg: PS256',
      withAlg('PS256', (input) =>
        sign('sha256', input, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }),
      ),
    ],
    ['alg: ES256', withAlg('ES256', signWith(key))],
    ['alg: lower case', withAlg('rs256', signWith(key))],
    ['alg: missing', encodeToken({ ...header, alg: undefined }, claims, signWith(key))],
    ['two parts', `${head}.${body}`],
    ['four parts', `${token}.${signature}`],
    ['no signature', `${head}.${body}.`],
    ['half a signature', token.slice(0, -20)],
    ['padded', `${token}==`],
    ['with a space', `${token} `],
    ['with a line end', `${token}\n`],
    ['in base64', token.replaceAll('-', '+').replaceAll('_', '/')],
    ['claims: no JSON', raw(headText, 'claims')],
    ['claims: a list', raw(headText, '[]')],
    ['claims: null', raw(headText, 'null')],
    ['claims: with blanks', raw(headText, ` ${text}\n`)],
    ['claims: with a BOM', raw(headText, `\uFEFF${text}`)],
    ['claims: and more', raw(headText, `${text}{}`)],
    ['header: with blanks', raw(` ${headText} `, text)],
    ['header: alg twice', raw(`{"alg":"none",${headText.slice(1)}`, text)],
    ['exp twice, the first past', raw(headText, twice('exp', 1, 'first'))],
    ['exp twice, the last past', raw(headText, twice('exp', 1, 'last'))],
    ['aud twice, the first another', raw(headText, twice('aud', ['another'], 'first'))],
    ['EXP beside exp', raw(headText, twice('EXP', 1, 'last'))],
    ['Aud beside aud', raw(headText, twice('Aud', ['another'], 'last'))],
  ]
}
