/** The demo's story: each scene shows one promise and checks that it was kept. */

import { createPublicKey, verify } from 'node:crypto'
import type { WebSocket } from 'ws'
import type { Pod } from '../kit/kube-store.ts'
import type { TokenRequest } from '../kit/kube-tokens.ts'
import { closed, nextMessage } from '../kit/worker-client.ts'
import type { Narrator } from './narrator.ts'
import { AUDIENCE, POD_ADDRESSES, type ServeRig } from '../kit/serve-rig.ts'

type Scene = { readonly rig: ServeRig; readonly narrator: Narrator; readonly cast: Cast }
/** The worker whose pod is deleted, with the token it still holds. */
type Leaver = { readonly socket: WebSocket; readonly token: string }
type Cast = { readonly a: Pod; readonly b: Pod; readonly c: Pod }

const [ADDRESS_A, ADDRESS_B, ADDRESS_C] = POD_ADDRESSES

/** Resolves with the pod that plays worker-a, which is still there at the end. */
export const tellStory = async (rig: ServeRig, narrator: Narrator): Promise<Pod> => {
  const cast = introduceCast(rig, narrator)
  const scene = { rig, narrator, cast }
  await showAdmission(scene)
  await showIdentityHeaders(scene)
  const leaver = await showInBand(scene)
  await showRefusals(scene)
  await showSpoofing(scene)
  await showStolenToken(scene)
  await showRevocation(scene, leaver)
  await showTraces(scene)
  return cast.a
}

const introduceCast = (rig: ServeRig, narrator: Narrator): Cast => {
  narrator.chapter('The stage, all of it on this machine')
  narrator.fact('Kubernetes API', `${rig.api.url} (a stand-in, TLS with its own CA)`)
  narrator.fact('gateway', `${rig.gateway.url} (a stand-in that echoes)`)
  narrator.fact('auth sidecar', `${rig.url}, process ${rig.sidecar.pid}`)
  narrator.fact('its admin port', rig.adminUrl)
  narrator.fact('its configuration', rig.configFile)
  const cast = {
    a: rig.createPod('worker-a', ADDRESS_A),
    b: rig.createPod('worker-b', ADDRESS_B),
    c: rig.createPod('worker-c', ADDRESS_C),
  }
  for (const { metadata, status } of Object.values(cast)) {
    narrator.fact(`pod ${metadata.name}`, `${status.podIP} as openclaw/openclaw-worker`)
  }
  return cast
}

const showAdmission = async ({ rig, narrator, cast }: Scene): Promise<void> => {
  narrator.chapter('A worker shows the token Kubernetes mounted for it, and is in')
  const outcome = await rig.connect(ADDRESS_A, rig.mint({ pod: cast.a }))
  narrator.check("worker-a connects with its pod's token", statusOf(outcome), outcome.ok)
  if (!outcome.ok) return
  const answer = await say(outcome.socket, 'hello from worker-a')
  narrator.check('it says hello, and the gateway echoes', `"${answer}"`, isEcho(answer, 'a'))
}

const showIdentityHeaders = async ({ rig, narrator, cast }: Scene): Promise<void> => {
  narrator.chapter('What the gateway saw of it: an identity it can rely on')
  const headers = identityHeaders(rig)
  for (const [name, value] of headers) narrator.fact(name, shorten(value))
  narrator.gap()
  const of = (name: string) => headers.find(([each]) => each === name)?.[1]
  const isItsPod =
    of('X-OpenClaw-K8s-Pod-Name') === 'worker-a' &&
    of('X-OpenClaw-K8s-Pod-Uid') === cast.a.metadata.uid &&
    of('X-Forwarded-For') === ADDRESS_A
  narrator.check('the pod, its uid and its address', 'as in the cluster', isItsPod)
  const isSigned = await verifyAssertion(rig, of('X-OpenClaw-K8s-Assertion') ?? '')
  narrator.check('the assertion, by /.well-known/jwks.json', 'signature holds', isSigned)
  const handshake = rig.gateway.handshakes.at(-1)
  const isHidden = handshake?.headers.authorization === undefined
  narrator.check("the worker's own token", 'never left the sidecar', isHidden)
}

const showInBand = async ({ rig, narrator, cast }: Scene): Promise<Leaver | undefined> => {
  narrator.chapter('A worker that cannot set headers shows its token in the first message')
  const token = rig.mint({ pod: cast.b })
  const outcome = await rig.connectInBand(ADDRESS_B, {
    type: 'connect.request',
    authMode: 'k8s-sa',
    saToken: token,
    role: 'node',
  })
  const answer = outcome.kind === 'message' ? outcome.message.text : outcome.kind
  narrator.check('worker-b sends connect.request', answer, /"success":true/.test(answer))
  if (outcome.kind !== 'message') return undefined
  const echo = await say(outcome.socket, 'hello from worker-b')
  narrator.check('it says hello, and the gateway echoes', `"${echo}"`, isEcho(echo, 'b'))
  return { socket: outcome.socket, token }
}

const showRefusals = async ({ rig, narrator, cast }: Scene): Promise<void> => {
  narrator.chapter('Who is not let in, and the code that says why')
  const stranger = rig.createPod('stranger', ADDRESS_C, 'default')
  const before = rig.api.counts.tokenReviews
  const refusals: readonly [what: string, token: TokenRequest, code: string][] = [
    ['a forged signature', { pod: cast.c, key: 'forged' }, 'signature_invalid'],
    [
      'a token for the API server',
      { pod: cast.c, audiences: ['https://kubernetes'] },
      'audience_mismatch',
    ],
    ['an expired token', { pod: cast.c, expiresInS: -60 }, 'token_expired'],
    ['a token that is not bound to a pod', UNBOUND, 'token_not_pod_bound'],
    ['a ServiceAccount that is not on the list', { pod: stranger }, 'identity_not_allowed'],
  ]
  for (const [what, request, code] of refusals) {
    const outcome = await rig.connect(ADDRESS_C, rig.mint(request))
    narrator.check(what, statusOf(outcome), codeOf(outcome) === code)
  }
  const asked = rig.api.counts.tokenReviews - before
  narrator.check('TokenReviews the API server was asked for', String(asked), asked === 0)
}

const UNBOUND = { namespace: 'openclaw', serviceAccount: 'openclaw-worker' }

const SPOOFED: Readonly<Record<string, string>> = {
  'X-Forwarded-For': '10.6.6.6',
  'x-forwarded-user': 'system:admin',
  Forwarded: 'for=10.6.6.6',
  'X-Real-IP': '10.6.6.6',
  'X-OpenClaw-K8s-Pod-Name': 'mallory',
  'x-openclaw-k8s-POD-name': 'mallory',
  X_OpenClaw_K8s_Pod_Name: 'mallory',
  'X.OpenClaw.K8s.Pod.Name': 'mallory',
  'X-OpenClaw-Scopes': 'operator.admin',
  'X-OpenClaw-K8s-Assertion': 'mallory',
}
const LIES = new Set(Object.values(SPOOFED))

const showSpoofing = async ({ rig, narrator, cast }: Scene): Promise<void> => {
  narrator.chapter('A worker with a good token lies about who it is')
  const outcome = await rig.connect(ADDRESS_C, rig.mint({ pod: cast.c }), SPOOFED)
  narrator.check('worker-c connects with headers of its own', statusOf(outcome), outcome.ok)
  narrator.gap()
  narrator.say('On the left what it sent, on the right what the gateway saw under any such name:')
  narrator.gap()
  const seen = seenHeaders(rig)
  for (const [name, lie] of Object.entries(SPOOFED)) {
    const values = seen.filter(([each]) => fold(each) === fold(name)).map(([, value]) => value)
    const came = values.length === 0 ? 'nothing' : values.map(shorten).join(' and ') || 'empty'
    narrator.check(`${name}: ${lie}`, came, !values.some(isLie) && values.length < 2)
  }
  const isClean = !seen.some(([, value]) => isLie(value))
  narrator.check('anything else the worker made up', isClean ? 'nothing' : 'something', isClean)
  if (outcome.ok) outcome.socket.terminate()
}

const isLie = (value: string): boolean => LIES.has(value)

const showStolenToken = async ({ rig, narrator, cast }: Scene): Promise<void> => {
  narrator.chapter('A stolen token: good, but shown from another address than its pod has')
  const outcome = await rig.connect(ADDRESS_C, rig.mint({ pod: cast.a }))
  const isRefused = codeOf(outcome) === 'source_address_mismatch'
  narrator.check(`worker-a's token from ${ADDRESS_C}`, statusOf(outcome), isRefused)
}

const showRevocation = async ({ rig, narrator }: Scene, leaver?: Leaver): Promise<void> => {
  narrator.chapter('A pod is deleted: its stream closes, its token is worth nothing')
  if (leaver === undefined) return narrator.check('worker-b has a stream', 'it has none', false)
  const deletedAt = performance.now()
  rig.api.deletePod('openclaw', 'worker-b')
  const { code, reason } = await closed(leaver.socket)
  const ms = Math.round(performance.now() - deletedAt)
  const isRevoked = code === 1008 && reason === 'pod_deleted'
  narrator.check("worker-b's stream is closed", `${code} ${reason}, ${ms} ms later`, isRevoked)
  const again = await rig.connect(ADDRESS_B, leaver.token)
  narrator.check('worker-b comes again with its token', statusOf(again), codeOf(again) === reason)
  narrator.gap()
  narrator.say('The API server, like a real one, would have called that token good a while longer.')
}

const showTraces = async ({ rig, narrator }: Scene): Promise<void> => {
  narrator.chapter('What is left behind: one audit line a decision, and the metrics')
  const lines = [
    await rig.sidecar.stdout.wait(({ event }) => event === 'k8s-auth-success'),
    // Failures without a verified signature are collected for a second.
    await rig.sidecar.stdout.wait(({ code }) => code === 'signature_invalid'),
    await rig.sidecar.stdout.wait(({ event }) => event === 'k8s-session-closed'),
  ]
  const inOrder = lines.toSorted((a, b) => timeOf(a).localeCompare(timeOf(b)))
  for (const line of inOrder) narrator.say(spaced(JSON.stringify(line)))
  narrator.gap()
  const series = (await rig.scrape()).filter((line) =>
    /^openclaw_k8s_(auth_attempts|sessions_active|stream_(closes|messages)|.*signature_invalid)/.test(
      line,
    ),
  )
  for (const line of series) narrator.say(line)
  narrator.gap()
  const successes = valueOf(series, 'openclaw_k8s_auth_attempts_total{result="success"}')
  narrator.check('workers admitted, by the metrics', String(successes), successes === 3)
}

const statusOf = (outcome: Awaited<ReturnType<ServeRig['connect']>>): string =>
  outcome.ok ? '101 admitted' : `${outcome.status} ${codeOf(outcome)}`

const codeOf = (outcome: Awaited<ReturnType<ServeRig['connect']>>): string =>
  outcome.ok ? 'admitted' : ((outcome.body as Refusal | undefined)?.error?.type ?? 'no code')

type Refusal = { readonly error?: { readonly type?: string } }

const say = async (socket: WebSocket, text: string): Promise<string> => {
  socket.send(text)
  return (await nextMessage(socket)).text
}

const isEcho = (text: string, worker: string): boolean => text === `hello from worker-${worker}`

const seenHeaders = (rig: ServeRig): readonly (readonly [string, string])[] => {
  const raw = rig.gateway.handshakes.at(-1)?.rawHeaders ?? []
  return raw.flatMap((name, at) => (at % 2 === 0 ? [[name, raw[at + 1] ?? ''] as const] : []))
}

const identityHeaders = (rig: ServeRig) =>
  seenHeaders(rig).filter(([name]) => name.toLowerCase().startsWith('x-'))

/** Names that a careless server takes for the same header. */
const fold = (name: string): string => name.toLowerCase().replaceAll(/[._]/g, '-')

const JWT = /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/

/** A JWT is never shown whole, not even one that is only for the gateway. */
const shorten = (value: string): string => {
  if (value === '') return '(empty)'
  return JWT.test(value) ? `${value.slice(0, 16)}… (${value.length} characters)` : value
}

const timeOf = ({ timestamp }: Readonly<Record<string, unknown>>): string => String(timestamp)

/** Lets a line of JSON break between its members. */
const spaced = (json: string): string => json.replaceAll(/,(?=")/g, ', ')

const valueOf = (series: readonly string[], name: string): number =>
  Number(series.find((line) => line.startsWith(`${name} `))?.slice(name.length))

/** As a gateway would: the key from the admin port, EdDSA, the right audience. */
const verifyAssertion = async (rig: ServeRig, assertion: string): Promise<boolean> => {
  const response = await fetch(`${rig.adminUrl}/.well-known/jwks.json`)
  const { keys } = (await response.json()) as { keys: readonly Record<string, string>[] }
  const [head = '', claims = '', signature = ''] = assertion.split('.')
  const jwk = keys[0]
  if (jwk === undefined) return false
  const { aud } = JSON.parse(Buffer.from(claims, 'base64url').toString() || '{}') as {
    aud?: string
  }
  const key = createPublicKey({ key: jwk, format: 'jwk' })
  const bytes = Buffer.from(signature, 'base64url')
  return aud === AUDIENCE && verify(null, Buffer.from(`${head}.${claims}`), key, bytes)
}
