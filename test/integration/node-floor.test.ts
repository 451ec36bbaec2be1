/** On a Node.js without its known security fixes, everything that stays running says so, and doctor too. */

import { test } from 'tap'
import { startServeRig } from '../kit/serve-rig.ts'
import { startSidecarProcess } from '../kit/sidecar-process.ts'

const as = (version: string) => {
  const script = `Object.defineProperty(process,'version',{value:'${version}'})`
  return { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(script)}` }
}
const LACKS = 'Node.js v26.4.0 lacks the security fixes of v26.5.1'

test('serve and connect warn at their start of a Node.js without its security fixes', async (t) => {
  for (const [version, warned] of [
    ['v26.4.0', [LACKS]],
    ['v26.5.1', []],
  ] as const) {
    const rig = await startServeRig({ workers: 0, admin: 0, process: { env: as(version) } })
    t.teardown(() => rig.close())
    const args = ['connect', '--gateway', rig.url, '--listen', '127.0.0.1:0']
    const connect = startSidecarProcess(args, { env: as(version) })
    await connect.stderr.wait(({ msg }) => msg === 'listening')
    connect.signal('SIGTERM')
    await connect.exited
    for (const { records } of [rig.sidecar.stderr, connect.stderr]) {
      const warnings = records.filter(({ msg }) => String(msg).startsWith('Node.js v'))
      t.strictSame(
        warnings.map(({ msg }) => msg),
        warned,
      )
      for (const { hint } of warnings) t.match(hint, /^Update the sidecar's image/)
    }
    const doctor = startSidecarProcess(['doctor', '--config', rig.configFile], { env: as(version) })
    await doctor.exited
    t.equal(doctor.stdout.text.includes(`[warn] node: ${LACKS}. Update`), warned.length > 0)
  }
})
