/** Only an `error` event of a watched stream that found no listener is survived, and only a few times. */

import { once } from 'node:events'
import { Duplex } from 'node:stream'
import { test } from 'tap'
import { PeerErrors } from '@openclaw-k8s/auth-sidecar/lib/peer-errors.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const setUp = () => {
  const clock = new FakeClock()
  const survived: Error[] = []
  const errors = new PeerErrors({ clock, onSurvived: (error) => void survived.push(error) })
  return { clock, survived, errors }
}

/** A stream like a socket: only the test adds listeners for its errors. */
const openStream = () => new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() })

/** What Node throws when nobody listens. */
const emitError = (stream: Duplex, error: Error): unknown => {
  try {
    stream.emit('error', error)
  } catch (thrown) {
    return thrown
  }
  return undefined
}

test('an error event without a listener destroys its stream, and is reported', async (t) => {
  const { errors, survived } = setUp()
  const stream = openStream()
  const neighbor = openStream()
  errors.watch(stream)
  errors.watch(neighbor)
  const error = new Error('reset')
  const thrown = emitError(stream, error)
  t.equal(errors.survive(thrown, 'uncaughtException'), true)
  t.equal(stream.destroyed, true)
  t.equal(neighbor.destroyed, false)
  t.strictSame(survived, [error])
})

test('the net ignores an error event that had a listener', async (t) => {
  const { errors, survived } = setUp()
  const stream = openStream()
  errors.watch(stream)
  const error = new Error('reset')
  stream.on('error', () => {})
  t.equal(emitError(stream, error), undefined)
  // The same object, thrown by a listener of ours: that is a bug.
  t.equal(errors.survive(error, 'uncaughtException'), false)
  t.strictSame(survived, [])
  t.equal(stream.destroyed, false)
})

test('an error of a stream nobody watches, a thrown error and a rejection are bugs', async (t) => {
  const { errors, survived } = setUp()
  const unwatched = openStream()
  const error = new Error('of the API client')
  t.equal(errors.survive(emitError(unwatched, error), 'uncaughtException'), false)
  t.equal(errors.survive(new Error('thrown'), 'uncaughtException'), false)
  t.equal(errors.survive('no error at all', 'uncaughtException'), false)
  const watched = openStream()
  errors.watch(watched)
  const rejected = emitError(watched, new Error('inside a promise'))
  t.equal(errors.survive(rejected, 'unhandledRejection'), false)
  t.strictSame(survived, [])
})

test('one error is survived once', async (t) => {
  const { errors } = setUp()
  const stream = openStream()
  errors.watch(stream)
  const thrown = emitError(stream, new Error('reset'))
  t.equal(errors.survive(thrown, 'uncaughtException'), true)
  t.equal(errors.survive(thrown, 'uncaughtException'), false)
  await once(stream, 'close')
})

test('ten a minute are survived, and the eleventh is a bug', async (t) => {
  const { clock, errors } = setUp()
  const survive = () => {
    const stream = openStream()
    errors.watch(stream)
    return errors.survive(emitError(stream, new Error('reset')), 'uncaughtException')
  }
  for (let n = 1; n <= 10; n += 1) {
    t.equal(survive(), true, `${n}`)
    clock.advance(1000)
  }
  t.equal(survive(), false, 'the eleventh')
  clock.advance(49_999)
  t.equal(survive(), false, 'as long as the first is less than a minute old')
  clock.advance(1)
  t.equal(survive(), true, 'a minute after the first')
})
