/** Every signal has exactly the effect it should, from the first moment. */

import { EventEmitter } from 'node:events'
import { test } from 'tap'
import { catchSignals } from '@openclaw-k8s/auth-sidecar/commands/signals.ts'

const setUp = () => {
  const exits: unknown[] = []
  const events = new EventEmitter()
  const target = Object.assign(events, { exit: (code?: unknown) => void exits.push(code) })
  const signals = catchSignals(target as unknown as NodeJS.Process)
  const reloads: string[] = []
  return { events, exits, signals, reloads, reload: () => void reloads.push('reload') }
}

test('a SIGHUP during the start reloads when the sidecar runs, once however often it came', (t) => {
  const { events, signals, reloads, reload } = setUp()
  events.emit('SIGHUP')
  events.emit('SIGHUP')
  t.strictSame(reloads, [])
  signals.onReload(reload)
  t.equal(reloads.length, 1)
  events.emit('SIGHUP')
  t.equal(reloads.length, 2)
  t.end()
})

test('without a SIGHUP nothing is reloaded', (t) => {
  const { signals, reloads, reload } = setUp()
  signals.onReload(reload)
  t.strictSame(reloads, [])
  t.end()
})

test('a signal to end is obeyed at once before there is anything to drain, and afterwards left to the drain', (t) => {
  for (const name of ['SIGTERM', 'SIGINT', 'SIGQUIT']) {
    const { events, exits, signals } = setUp()
    events.emit(name)
    t.strictSame(exits, [0], name)
    signals.releaseEnding()
    t.equal(events.listenerCount(name), 0)
  }
  t.end()
})

test('no listener keeps a broken process from ending', (t) => {
  const { events } = setUp()
  for (const name of ['SIGSEGV', 'SIGBUS', 'SIGFPE', 'SIGILL', 'SIGABRT', 'SIGTRAP']) {
    t.equal(events.listenerCount(name), 0, name)
  }
  t.end()
})
