/** A sidecar that cannot start says why and ends, whatever happens to standard error. */

import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'tap'
import { startSidecarProcess } from '../kit/sidecar-process.ts'
import { startOutputRig } from '../kit/output-rig.ts'
import { openFull, openPipe } from '../kit/pipes.ts'

test('a failed start has the right exit code, with stderr blocked, gone, full or read late', async (t) => {
  const directory = t.testdir({ 'bad.yaml': 'gatway: {}\n' })
  const taken = createServer().listen(0, '127.0.0.1')
  t.teardown(() => taken.close())
  await once(taken, 'listening')
  const rig = await startOutputRig(t)
  const admin = `listen.admin=127.0.0.1:${(taken.address() as AddressInfo).port}`
  const starts = [
    { code: 78, told: /gatway/, args: ['--config', join(directory, 'bad.yaml')] },
    {
      code: 69,
      told: /"hint":"Another process has this port: stop it, or set another port\.","msg":"the sidecar could not start: it cannot listen on listen\.admin"/,
      args: ['--config', rig.configFile, '--set', admin],
    },
  ]
  for (const { code, told, args } of starts) {
    const [blocked, gone, late] = [openPipe(t), openPipe(t), openPipe(t)]
    blocked.fill()
    late.fill()
    const start = (stderr: number) => startSidecarProcess(['serve', ...args], { stderr }).exited
    const ended = [blocked.writer, gone.writer, openFull(t)].map(start)
    gone.closeReader()
    ended.push(start(late.writer))
    await late.startReading().until((text) => told.test(text) && text.endsWith('\n'))
    for (const exit of await Promise.all(ended)) t.strictSame(exit, { code, signal: null })
  }
})
