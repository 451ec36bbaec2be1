/** Lines that an output lost are counted and reported once, and the others arrive whole. */

import { test } from 'tap'
import type { ServeRig } from '../kit/serve-rig.ts'
import { startOutputRig, refuseOne } from '../kit/output-rig.ts'
import { openPipe } from '../kit/pipes.ts'
import { waitUntil } from '../kit/wait.ts'

/** Node warns of something while the sidecar starts. */
const WARNING_AT_START = `--import=data:text/javascript,${encodeURIComponent(
  "process.on('newListener', (name) => name === 'warning' && process.emitWarning('beware'))",
)}`
const droppedBy = async (rig: ServeRig, output: 'audit' | 'log'): Promise<number> => {
  const series = `openclaw_k8s_log_lines_dropped_total{output="${output}"} `
  const line = (await rig.scrape()).find((each) => each.startsWith(series))
  return line === undefined ? 0 : Number(line.slice(series.length))
}

const waitForDropped = async (rig: ServeRig, output: 'audit' | 'log') => {
  let dropped = 0
  await waitUntil(async () => (dropped = await droppedBy(rig, output)) > 0)
  return dropped
}

test('a warning of Node is a line of the log, not text between its lines', async (t) => {
  const { sidecar } = await startOutputRig(t, { env: { NODE_OPTIONS: WARNING_AT_START } })
  const warned = await sidecar.stderr.wait(({ msg }) => msg === 'Node.js warning')
  t.match(warned, { level: 'warn', err: { message: 'beware' } })
  t.equal(sidecar.stderr.records.length, sidecar.stderr.all.length)
})

test('a reader of stdout that leaves is reported once, and the lines it missed are counted', async (t) => {
  const rig = await startOutputRig(t)
  const { sidecar } = rig
  t.equal(await droppedBy(rig, 'audit'), 0)
  sidecar.abandonStdout()
  await refuseOne(rig)
  const told = await sidecar.stderr.wait(({ msg }) => msg === 'lines are being dropped')
  t.match(told, { level: 'error', output: 'audit', code: 'EPIPE' })
  await refuseOne(rig)
  await waitUntil(async () => (await droppedBy(rig, 'audit')) >= 2)
  t.equal(sidecar.stderr.records.filter(({ output }) => output === 'audit').length, 1)
  t.equal(await droppedBy(rig, 'log'), 0)
  sidecar.signal('SIGINT')
  t.strictSame(await sidecar.exited, { code: 0, signal: null })
})

test('a blocked audit loses nothing: its lines arrive whole and in order once it is read', async (t) => {
  const pipe = openPipe(t)
  const rig = await startOutputRig(t, { stdout: pipe.writer })
  pipe.fill()
  for (let n = 0; n < 20; n += 1) await refuseOne(rig)
  const reading = pipe.startReading()
  await reading.until((text) => text.split('\n').length > 20)
  const lines = reading.text().trim().split('\n')
  const addresses = lines.map((line) => (JSON.parse(line) as { remoteIp: string }).remoteIp)
  const numbers = addresses.map((address) => Number(address.split('.')[3]))
  t.strictSame(
    numbers,
    Array.from({ length: 20 }, (_, n) => (numbers[0] ?? 0) + n),
  )
  t.equal(await droppedBy(rig, 'audit'), 0)
})

test('when a reader comes back one line says how many audit lines it missed', async (t) => {
  const pipe = openPipe(t)
  const rig = await startOutputRig(t, { stdout: pipe.writer })
  const { stderr } = rig.sidecar
  pipe.closeReader()
  await refuseOne(rig)
  const dropped = await waitForDropped(rig, 'audit')
  const reading = pipe.startReading()
  await refuseOne(rig)
  const isRecovery = ({ msg }: { msg?: unknown }) =>
    msg === 'lines were dropped; writing works again'
  t.match(await stderr.wait(isRecovery), { level: 'error', output: 'audit', lines: dropped })
  await refuseOne(rig)
  await reading.until((text) => text.split('\n').length === 3)
  for (const line of reading.text().trim().split('\n')) t.match(JSON.parse(line), { log: 'audit' })
  t.equal(stderr.records.filter(isRecovery).length, 1)
  t.equal(await droppedBy(rig, 'audit'), dropped)
})
