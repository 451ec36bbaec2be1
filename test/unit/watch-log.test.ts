/** An outage of watches is one line at its begin and one at its end, in words. */

import { test } from 'tap'
import { WatchLog } from '@openclaw-k8s/auth-sidecar/observe/watch-log.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const setUp = () => {
  const clock = new FakeClock()
  const lines: unknown[] = []
  const tell = (...line: unknown[]) => void lines.push(line)
  return {
    clock,
    lines,
    watchLog: new WatchLog({ clock, log: { warn: tell, info: tell, debug() {} } }),
  }
}

test('watches that break in the same moment are one line, and so is their return', async (t) => {
  const { clock, lines, watchLog } = setUp()
  const each = (told: (watch: { scope: string; resource: string }, nth: number) => void) => {
    for (let n = 0; n < 12; n += 1) {
      told({ scope: `namespace n${n}`, resource: 'pods' }, n)
      told({ scope: `namespace n${n}`, resource: 'serviceaccounts' }, n)
    }
  }
  each((watch, nth) => watchLog.broke(watch, () => `cause ${nth}`))
  t.equal(lines.length, 0)
  clock.advance(1000)
  t.match(lines, [
    [
      { others: 2, resources: ['pods', 'serviceaccounts'], err: 'cause 0' },
      'a watch was interrupted',
    ],
  ])
  t.equal((lines[0] as [{ scopes: string[] }])[0].scopes.length, 10)
  each((watch, nth) => watchLog.worked(watch, 1000 + nth))
  clock.advance(1000)
  t.match(lines[1], [{ others: 2, downMs: 1011 }, 'the watch works again'])
  t.equal(clock.pending, 0)
})

test('what breaks later is another line, and the cause is the one that lasts', async (t) => {
  const { clock, lines, watchLog } = setUp()
  const watch = { scope: 'namespace a', resource: 'pods' }
  let cause = 'cut'
  watchLog.broke(watch, () => cause)
  cause = 'forbidden'
  clock.advance(1000)
  watchLog.broke(watch, () => 'another')
  clock.advance(1000)
  t.match(lines, [
    [{ scopes: ['namespace a'], resources: ['pods'], err: 'forbidden' }],
    [{ err: 'another' }],
  ])
})
