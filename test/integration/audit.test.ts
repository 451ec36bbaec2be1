/** Every refusal leaves a line that says who it was, or who it claimed to be. */

import { test } from 'tap'
import type { Pod } from '../kit/kube-store.ts'
import { withBadSignature, type TokenRequest } from '../kit/kube-tokens.ts'
import { codeOf, startWatchedRig } from '../kit/watched-rig.ts'

/** What each code before the signature needs of a token, besides its pod. */
const BENT: Readonly<Record<string, TokenRequest>> = {
  issuer_not_allowed: { claims: { iss: 'https://elsewhere.example' } },
  audience_mismatch: { audiences: ['https://kubernetes.default.svc'] },
  token_expired: { expiresInS: 3600, nowMs: -7_200_000 },
  token_not_yet_valid: { nowMs: 7_200_000 },
  token_lifetime_exceeded: { expiresInS: 26 * 3600 },
}

test('each refusal by the claims alone names the pod and account that the token claims', async (t) => {
  const rig = await startWatchedRig(t)
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const foreign = rig.createPod('worker-b', '127.0.0.12', { serviceAccount: 'builder' })
  const now = rig.clock.now()
  const tokens: Record<string, string> = {
    identity_not_allowed: rig.mint({ pod: foreign }),
    signature_invalid: withBadSignature(rig.mint({ pod }), 0),
    token_not_pod_bound: rig.mint({ namespace: 'openclaw', serviceAccount: 'openclaw-worker' }),
  }
  for (const [code, { nowMs = 0, ...request }] of Object.entries(BENT)) {
    tokens[code] = rig.mint({ pod, ...request, nowMs: now + nowMs })
  }
  for (const [code, token] of Object.entries(tokens)) {
    t.equal(codeOf(await rig.connect(token)), code)
  }
  rig.clock.advance(1000)
  const claimOf = ({ metadata, spec }: Pod) => ({
    namespace: metadata.namespace,
    serviceAccount: spec.serviceAccountName,
    podName: metadata.name,
  })
  t.equal(rig.audit.length, Object.keys(tokens).length)
  for (const { code, claimed, unverified, count, ...line } of rig.audit) {
    const name = String(code)
    const { podName, ...account } = claimOf(name === 'identity_not_allowed' ? foreign : pod)
    const expected = name === 'token_not_pod_bound' ? account : { ...account, podName }
    t.strictSame({ claimed, unverified, count }, { claimed: expected, unverified: true, count: 1 })
    t.notOk('namespace' in line, 'nothing is told as proven')
  }
})

test('SNAT and theft differ in one line: it has both addresses', async (t) => {
  const rig = await startWatchedRig(t)
  const token = rig.mint({ pod: rig.createPod('worker-a', '127.0.0.11') })
  const attempts = [1, 2, 3, 4, 5].map(() => rig.connect(token, '127.0.0.99'))
  const mismatch = 'source_address_mismatch'
  t.strictSame((await Promise.all(attempts)).map(codeOf), Array(5).fill(mismatch))
  rig.clock.advance(1000)
  t.match(rig.audit, [
    {
      displayName: 'worker-a',
      remoteIp: '127.0.0.99',
      podAddresses: ['127.0.0.11'],
      count: 5,
    },
  ])
})

test('one address with many wrong tokens leaves one line a second, which names three pods', async (t) => {
  const rig = await startWatchedRig(t)
  const tokens = [1, 2, 3, 4, 5].map((nth) => {
    const pod = rig.createPod(`worker-${nth}`, `127.0.0.${20 + nth}`)
    return rig.mint({ pod, audiences: ['another'] })
  })
  for (const token of [...tokens, ...tokens.slice(0, 1)]) await rig.connect(token)
  rig.clock.advance(1000)
  t.match(rig.audit, [
    {
      code: 'audience_mismatch',
      claimed: { podName: 'worker-1' },
      alsoClaimed: [{ podName: 'worker-2' }, { podName: 'worker-3' }],
      otherClaims: 2,
      count: 6,
    },
  ])
})
