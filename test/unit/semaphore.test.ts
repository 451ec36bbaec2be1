/** At most `max` callers hold the semaphore, the others wait in order, and one that gives up delays nobody. */

import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'tap'
import { Semaphore, type Release } from '@openclaw-k8s/auth-sidecar/lib/semaphore.ts'

const setUp = (max: number) => {
  const semaphore = new Semaphore(max)
  const inside = new Map<string, Release>()
  const order: string[] = []
  const ask = (name: string, controller = new AbortController()) => {
    const enter = async () => {
      inside.set(name, await semaphore.acquire(controller.signal))
      order.push(name)
    }
    return { taken: enter(), abort: () => controller.abort(new Error(`${name} is gone`)) }
  }
  const leave = async (name: string) => {
    inside.get(name)?.()
    inside.delete(name)
    await turn()
  }
  return { semaphore, inside, order, ask, leave }
}

test('no more callers enter than there are places, in the order in which they asked', async (t) => {
  const { semaphore, inside, order, ask, leave } = setUp(2)
  for (const name of ['a', 'b', 'c', 'd', 'e']) void ask(name).taken
  await turn()
  t.strictSame([...inside.keys()], ['a', 'b'])
  t.equal(semaphore.waiting, 3)
  for (const name of ['b', 'a', 'd', 'c', 'e']) {
    await leave(name)
    t.ok(inside.size <= 2)
  }
  t.strictSame(order, ['a', 'b', 'c', 'd', 'e'])
  await ask('f').taken
  await ask('g').taken
  t.equal(inside.size, 2, 'every place came back')
})

test('a caller that gives up is passed over, and a double release does not add a place', async (t) => {
  const { semaphore, inside, ask, leave } = setUp(1)
  await ask('a').taken
  const gone = ask('b')
  void ask('c').taken
  gone.abort()
  await t.rejects(gone.taken, { message: 'b is gone' })
  t.equal(semaphore.waiting, 1)
  const twice = inside.get('a')
  await leave('a')
  twice?.()
  void ask('d').taken
  await turn()
  t.strictSame([...inside.keys()], ['c'])
  await leave('c')
  t.strictSame([...inside.keys()], ['d'])
})

test('a caller that is gone before it asks takes no place', async (t) => {
  const semaphore = new Semaphore(1)
  await t.rejects(semaphore.acquire(AbortSignal.abort(new Error('too late'))), {
    message: 'too late',
  })
  const leave = await semaphore.acquire(new AbortController().signal)
  const controller = new AbortController()
  const waiting = semaphore.acquire(controller.signal)
  leave()
  const entered = await waiting
  controller.abort(new Error('after it came in'))
  const third = semaphore.acquire(new AbortController().signal)
  t.equal(semaphore.waiting, 1, 'an abort gives no place back: leaving does')
  entered()
  t.type(await third, 'function')
})
