/** So many are at it at once, the rest in order of asking, and who gives up holds nobody up. */

import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'tap'
import { Places, type Leave } from '@openclaw-k8s/auth-sidecar/lib/semaphore.ts'

const setUp = (max: number) => {
  const places = new Places(max)
  const inside = new Map<string, Leave>()
  const order: string[] = []
  const ask = (name: string, controller = new AbortController()) => {
    const enter = async () => {
      inside.set(name, await places.take(controller.signal))
      order.push(name)
    }
    return { taken: enter(), abort: () => controller.abort(new Error(`${name} is gone`)) }
  }
  const leave = async (name: string) => {
    inside.get(name)?.()
    inside.delete(name)
    await turn()
  }
  return { places, inside, order, ask, leave }
}

test('no more are inside than there are places, and they come in as they asked', async (t) => {
  const { places, inside, order, ask, leave } = setUp(2)
  for (const name of ['a', 'b', 'c', 'd', 'e']) void ask(name).taken
  await turn()
  t.strictSame([...inside.keys()], ['a', 'b'])
  t.equal(places.waiting, 3)
  for (const name of ['b', 'a', 'd', 'c', 'e']) {
    await leave(name)
    t.ok(inside.size <= 2)
  }
  t.strictSame(order, ['a', 'b', 'c', 'd', 'e'])
  await ask('f').taken
  await ask('g').taken
  t.equal(inside.size, 2, 'every place came back')
})

test('who gives up in line is passed over, and who gives back twice makes no second place', async (t) => {
  const { places, inside, ask, leave } = setUp(1)
  await ask('a').taken
  const gone = ask('b')
  void ask('c').taken
  gone.abort()
  await t.rejects(gone.taken, { message: 'b is gone' })
  t.equal(places.waiting, 1)
  const twice = inside.get('a')
  await leave('a')
  twice?.()
  void ask('d').taken
  await turn()
  t.strictSame([...inside.keys()], ['c'])
  await leave('c')
  t.strictSame([...inside.keys()], ['d'])
})

test('who is gone before asking takes no place', async (t) => {
  const places = new Places(1)
  await t.rejects(places.take(AbortSignal.abort(new Error('too late'))), { message: 'too late' })
  const leave = await places.take(new AbortController().signal)
  const controller = new AbortController()
  const waiting = places.take(controller.signal)
  leave()
  const entered = await waiting
  controller.abort(new Error('after it came in'))
  const third = places.take(new AbortController().signal)
  t.equal(places.waiting, 1, 'an abort gives no place back: leaving does')
  entered()
  t.type(await third, 'function')
})
