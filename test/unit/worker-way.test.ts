/** Readiness asks the gateway as a worker would, and only a refusal that meets every worker counts. */

import { test } from 'tap'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import { GatewayRefused } from '@openclaw-k8s/auth-sidecar/gateway-refusal.ts'
import { NoAnswer } from '@openclaw-k8s/auth-sidecar/tunnel/dial.ts'
import { WorkerWay } from '@openclaw-k8s/auth-sidecar/edge/worker-way.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const BETWEEN_MS = 2000

const setUp = (isAskedFirst: boolean) => {
  const clock = new FakeClock()
  let answer: Error | undefined
  let asked = 0
  const changes: (string | undefined)[] = []
  const way = new WorkerWay({
    isAskedFirst,
    clock,
    async ask() {
      asked += 1
      if (answer !== undefined) throw answer
    },
    onChanged: (refused) => changes.push(refused?.refusal),
  })
  const answerWith = (error?: Error) => {
    answer = error
    clock.advance(BETWEEN_MS)
  }
  return { way, answerWith, changes, asked: () => asked }
}

const refusedBy = (word: string) => new GatewayRefused(word, 'the gateway answered')

test('a refusal of every worker is an objection until the gateway takes them again', async (t) => {
  const { way, answerWith, changes, asked } = setUp(true)
  answerWith(refusedBy('proxy_attribution_required'))
  t.match(await way.findObjection(), 'trustedProxies')
  await way.findObjection()
  t.equal(asked(), 1, 'at most one question in two seconds')
  answerWith()
  t.equal(await way.findObjection(), undefined)
  t.strictSame(changes, ['proxy_attribution_required', undefined])
})

test('a refusal that a worker with an identity may not get is none, nor is it asked for again', async (t) => {
  for (const word of ['unauthorized', 'rate_limited', 'payment_required']) {
    const { way, answerWith, asked } = setUp(false)
    way.dialed(new NoAnswer())
    answerWith(refusedBy(word))
    t.equal(await way.findObjection(), undefined, word)
    await way.findObjection()
    t.equal(asked(), 1)
  }
})

test('silence is left to the other checks, and the question is asked again', async (t) => {
  const { way, answerWith, asked } = setUp(true)
  answerWith(new Fault('gateway_unreachable', 'nobody answers'))
  t.equal(await way.findObjection(), undefined)
  answerWith(refusedBy('tls'))
  t.match(await way.findObjection(), 'TLS')
  t.equal(asked(), 2)
})
