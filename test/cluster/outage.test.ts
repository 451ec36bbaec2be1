/** The real API server frozen or killed: streams live on, known workers come back, others are told to retry. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { waitForProcess } from '../kit/wait.ts'
import type { Connected, Refused } from '../kit/worker-client.ts'
import { nextMessage } from '../kit/worker-client.ts'
import { startClusterRig, type ClusterRig, type Pod } from './cluster-rig.ts'
import { findApiServer, type ApiServerProcess } from './own-cluster.ts'
import { codeOf, startRig, verdictOf, type Rig } from './rig.ts'

const REVIEW_TIMEOUT_MS = 1000
/** A review and a GET of the pod may each use up their deadline, and a busy machine is slow. */
const ANSWERED_WITHIN_MS = 4 * REVIEW_TIMEOUT_MS
const BACK_WITHIN_MS = 60_000

describe('outage', () => {
  let cluster: ClusterRig
  let refusing: Rig
  let trusting: Rig
  let pod: Pod
  let thief: Pod
  let server: ApiServerProcess | undefined

  before(async () => {
    cluster = await startClusterRig()
    server = findApiServer(cluster.config)
    const set = [`review.timeout=${REVIEW_TIMEOUT_MS}ms`]
    refusing = await startRig(cluster, { set })
    trusting = await startRig(cluster, { set: [...set, 'k8sTrust.onApiOutage=verify-locally'] })
    pod = await cluster.createPod()
    thief = await cluster.createPod()
  })
  after(async () => {
    await refusing?.stop()
    await trusting?.stop()
    await cluster?.close()
  })

  /** What holds while the API server does not answer, for whatever reason. */
  const outage = async (begin: () => void, end: () => void) => {
    const known = await cluster.mint({ pod })
    const [fresh, another] = await Promise.all([cluster.mint({ pod }), cluster.mint({ pod })])
    const stream = await refusing.open(pod, known)
    begin()
    try {
      const startedAt = performance.now()
      const refused = await refusing.connect(pod, fresh)
      assert.ok(isRetryable(refused), 'an unknown token: 503 with Retry-After, never 401')
      assert.equal(codeOf(refused), 'review_unavailable')
      assert.ok(performance.now() - startedAt < ANSWERED_WITHIN_MS, 'within the deadline')
      assert.equal(verdictOf(await refusing.connect(pod, known)), 'ok', 'a cached verdict holds')
      stream.send('still here')
      assert.equal((await nextMessage(stream)).text, 'still here')

      assert.equal(verdictOf(await trusting.connect(pod, fresh)), 'ok', 'verified locally')
      const elsewhere = await trusting.connect({ ...pod, ip: thief.ip }, another)
      assert.equal(codeOf(elsewhere), 'source_address_unconfirmed', 'not from another address')
      const forged = `${another.slice(0, -8)}AAAAAAAA`
      assert.equal(verdictOf(await trusting.connect(pod, forged)), 'signature_invalid')
    } finally {
      end()
    }
    await waitForProcess('the API server', BACK_WITHIN_MS, async () => {
      const outcome = await refusing.connect(pod, fresh)
      return verdictOf(outcome) === 'ok'
    })
    assert.equal(stream.readyState, stream.OPEN, 'nobody lost a stream')
    stream.terminate()
  }

  const isRetryable = (outcome: Connected | Refused): boolean =>
    !outcome.ok && outcome.status === 503 && Number(outcome.headers['retry-after']) > 0

  test('frozen', async (t) => {
    if (server === undefined) return t.skip('only where the API server is a process of ours')
    const { freeze, thaw } = server
    await outage(freeze, thaw)
  })

  test('killed, and started again', async (t) => {
    if (server === undefined) return t.skip('only where the API server is a process of ours')
    const { kill, start } = server
    await outage(kill, start)
    const later = await cluster.createPod()
    const token = await cluster.mint({ pod: later })
    await waitForProcess(
      'the watch',
      BACK_WITHIN_MS,
      async () => verdictOf(await trusting.connect(later, token)) === 'ok',
    )
    await cluster.deletePod(later)
    await waitForProcess(
      'its revocation',
      1000,
      async () => verdictOf(await trusting.connect(later, token)) === 'pod_deleted',
    )
  })
})
