/** A command that ends by itself has written all its output, or knows that it has not. */

import { EventEmitter } from 'node:events'
import { test } from 'tap'
import { StandardStream } from '@openclaw-k8s/auth-sidecar/commands/standard-stream.ts'

type Done = (error?: Error | null) => void

const setUp = () => {
  const calls: Done[] = []
  const stream = Object.assign(new EventEmitter(), {
    write: (_: string, done: Done) => void calls.push(done),
  })
  let opened = 0
  const standard = new StandardStream(() => {
    opened += 1
    return stream
  })
  return { calls, stream, standard, opened: () => opened }
}
const errorOf = (code: string) => Object.assign(new Error(code), { code })

test('finish waits for the reader of the last write', async (t) => {
  const { calls, standard } = setUp()
  standard.write('a')
  standard.write('b')
  let isFinished = false
  const finished = standard.finish().then((failure) => {
    isFinished = true
    return failure
  })
  calls[0]?.()
  await Promise.resolve()
  t.notOk(isFinished)
  calls[1]?.()
  t.equal(await finished, undefined)
})

test('a failure is reported at the end, and a reader that left is not a failure', async (t) => {
  for (const [code, expected] of [
    ['ENOSPC', 'ENOSPC'],
    ['EPIPE', undefined],
  ] as const) {
    const { calls, standard, stream } = setUp()
    standard.write('a')
    standard.write('b')
    stream.emit('error', errorOf(code))
    calls[0]?.(errorOf(code))
    calls[1]?.(errorOf('ERR_STREAM_DESTROYED'))
    t.equal((await standard.finish())?.message, expected)
  }
})

test('a stream that is never written to is never opened', async (t) => {
  const { standard, opened } = setUp()
  t.equal(await standard.finish(), undefined)
  t.equal(opened(), 0)
  standard.write('a')
  standard.write('b')
  t.equal(opened(), 1)
})
