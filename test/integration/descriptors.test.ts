/** When descriptors run out, workers and probes come before idle connections, and the process lives on. */

import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import type { WebSocket } from 'ws'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import { startSidecarProcess } from '../kit/sidecar-process.ts'
import { startKubeApi } from '../kit/kube-api.ts'
import { sidecarSettings } from '../kit/sidecar-settings.ts'
import { AUDIENCE } from '../kit/rig.ts'
import { waitUntil } from '../kit/wait.ts'
import { connectWorker, nextMessage } from '../kit/worker-client.ts'

test('with few descriptors idle admin connections keep no worker out, and do not end the process', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'auth-sidecar-'))
  const api = await startKubeApi()
  const gateway = await startGatewayStub()
  const { caFile, tokenFile } = await api.files(directory)
  const settings = [
    ...sidecarSettings({ gateway, api, caFile, tokenFile }),
    'limits.streamsPerPod=1024',
    'limits.pendingPerAddress=1024',
  ]
  const args = ['serve', ...settings.flatMap((setting) => ['--set', setting])]
  const sidecar = startSidecarProcess(args, { openFilesMax: 128 })
  t.teardown(async () => {
    sidecar.signal('SIGKILL')
    await sidecar.exited
    await gateway.close()
    await api.stop()
    rmSync(directory, { recursive: true })
  })
  const { workers, admin } = await sidecar.listening()
  const pod = api.createPod({
    namespace: 'openclaw',
    name: 'worker-a',
    serviceAccount: 'openclaw-worker',
    ips: ['127.0.0.11'],
    nodeName: 'node-1',
  })
  const token = api.mintToken({ pod, audiences: [AUDIENCE] })
  const worker = { url: `ws://${workers}`, token, localAddress: '127.0.0.11' }
  const isAdmitted = () =>
    connectWorker(worker).then(
      (outcome) => {
        if (outcome.ok) outcome.socket.terminate()
        return outcome.ok
      },
      () => false,
    )
  await waitUntil(isAdmitted)

  let closed = 0
  const adminPort = Number(admin.split(':').at(-1))
  for (let n = 0; n < 200; n += 1) {
    const localAddress = `127.0.3.${1 + (n % 50)}`
    const socket = connect({ host: '127.0.0.1', port: adminPort, localAddress })
    t.teardown(() => socket.destroy())
    socket
      .on('error', () => {})
      .resume()
      .on('close', () => (closed += 1))
  }
  await waitUntil(() => closed >= 200 - 128 / 16)
  t.ok(await isAdmitted(), 'a worker gets in')
  t.equal((await fetch(`http://${admin}/livez`)).status, 200)

  // A stream takes two descriptors, so these need more than there are. One after the other; otherwise they
  // would take all descriptors before the first of them has its gateway.
  const streams: WebSocket[] = []
  let faults = 0
  const answers: string[] = []
  for (let n = 0; n < 80; n += 1) {
    const outcome = await connectWorker(worker).catch(() => undefined)
    if (outcome?.ok === true) streams.push(outcome.socket)
    else {
      faults += 1
      if (outcome !== undefined) answers.push(String(outcome.status))
    }
  }
  // No answer if the last descriptor went to a gateway's socket: then nothing is accepted.
  t.strictSame(
    answers.filter((status) => !/^50[23]$/.test(status)),
    [],
    'never a denial',
  )
  t.ok(streams.length > 10 && faults > 0, `${streams.length} streams, ${faults} faults`)
  const [first] = streams
  first?.send('hello')
  t.equal((await nextMessage(first!)).text, 'hello', 'open streams go on')
  for (const socket of streams) socket.terminate()
  await waitUntil(isAdmitted)
  t.notMatch(sidecar.stderr.text, /a bug/)
  t.match(
    sidecar.stderr.text,
    /the process may open 128 files: fewer than 64 of 10000 streams \(limits\.streams\) fit/,
  )
})
