/** Whatever happens to standard output and error, the sidecar goes on, and ends when it is told to. */

import { test } from 'tap'
import { startOutputRig, refuseOne } from '../kit/output-rig.ts'
import { openFull, openPipe } from '../kit/pipes.ts'
import { waitUntil } from '../kit/wait.ts'

/** SIGWINCH becomes a bug: an exception nobody catches. */
const BUG_AT_SIGWINCH = `--import=data:text/javascript,${encodeURIComponent(
  "process.on('SIGWINCH', () => setImmediate(() => { throw new Error('a bug') }))",
)}`

for (const state of ['blocked', 'gone', 'full'] as const) {
  const signal = state === 'gone' ? 'SIGINT' : 'SIGTERM'
  test(`with both outputs ${state} workers come and go, and ${signal} ends it with 0`, async (t) => {
    const pipe = openPipe(t)
    const fd = state === 'full' ? openFull(t) : pipe.writer
    const rig = await startOutputRig(t, { stdout: fd, stderr: fd })
    if (state === 'blocked') pipe.fill()
    if (state === 'gone') pipe.closeReader()
    await refuseOne(rig)
    const pod = rig.createPod('worker-a', '127.0.0.11')
    const outcome = await rig.connect('127.0.0.11', rig.mint({ pod }))
    t.ok(outcome.ok, 'a worker is admitted')
    t.equal((await fetch(`${rig.adminUrl}/livez`)).status, 200)
    rig.sidecar.signal(signal)
    t.strictSame(await rig.sidecar.exited, { code: 0, signal: null })
  })
}

for (const [signals, code] of [
  [['SIGWINCH'], 70],
  [['SIGTERM', 'SIGTERM'], 1],
] as const) {
  test(`with both outputs blocked ${signals.join(' and ')} still ends it with ${code}`, async (t) => {
    const pipe = openPipe(t)
    const process = {
      stdout: pipe.writer,
      stderr: pipe.writer,
      env: { NODE_OPTIONS: BUG_AT_SIGWINCH },
    }
    const rig = await startOutputRig(t, process)
    pipe.fill()
    const pod = rig.createPod('worker-a', '127.0.0.11')
    await rig.connect('127.0.0.11', rig.mint({ pod }))
    for (const signal of signals) {
      rig.sidecar.signal(signal)
      // The first signal must have been handled before the second.
      await waitUntil(async () => !(await fetch(`${rig.adminUrl}/readyz`).catch(() => NOT_OK)).ok)
    }
    t.strictSame(await rig.sidecar.exited, { code, signal: null })
  })
}
const NOT_OK = { ok: false }
