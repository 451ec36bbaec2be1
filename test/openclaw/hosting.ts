/** Hosted sessions: whole turns that run in a pod, through the sidecar, and what ends or refuses them. */

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { hash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { chmod, mkdir, stat } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { waitForProcess } from '../kit/wait.ts'
import { absent, testUnless } from './bounded-test.ts'
import { turnMessage } from './model.ts'
import { runProcess } from './processes.ts'
import { hasText } from './product.ts'
import { NAMESPACE, WORKER, type ProductRig, type RigPod } from './product-rig.ts'
import type { startSidecar } from './sidecar.ts'

type Sidecar = Awaited<ReturnType<typeof startSidecar>>

const FILE_BYTES = 30 * 1024 ** 2
const HASH = '0'.repeat(64)
const PREFIX = '/__openclaw__/'
/** A node that hosts sessions must not be root. */
const UID = 1000
/** Others may go through a directory. */
const SEARCHABLE = 0o011
const READY_LIMIT_MS = 120_000
const TURN_LIMIT_MS = 60_000
const END_LIMIT_MS = 1000
const SLOTS_LIMIT_MS = 60_000
const GIT_LIMIT_MS = 30_000
/** In the gateway's own words. */
const TRANSFER_REFUSED = 'could not be reconciled: node workspace command failed (INVALID_REQUEST)'
/** A first session has no files outside its pack, and so no blobs. */
const ROUTES = ['bundle', 'manifest', 'pack', 'worker', 'reconciliation']

const HOSTING_TRUST = {
  allowedIdentities: [
    {
      namespace: NAMESPACE,
      serviceAccount: WORKER,
      allowedCommands: ['*'],
      allowSessionHosting: true,
    },
  ],
}

export const testHosting = (rig: ProductRig): void => {
  const lack = rig.lacks.sessionHosting
  const port = rig.ports.workers + 1
  let sidecar: Sidecar
  let host: Host

  testUnless(
    lack,
    'a session on a pod named by its device runs a command there and brings 30 MiB back',
    async (t) => {
      sidecar = await rig.startSidecarBeside({
        sessionHosting: true,
        trust: HOSTING_TRUST,
      })
      host = await startHost(rig, port)
      const key = await createSession(rig)
      await dispatch(rig, key, { deviceId: host.deviceId })
      const id = randomUUID()
      const file = `file-${id}.bin`
      const make = `head -c ${FILE_BYTES} /dev/urandom > ${file} && sha256sum ${file} && echo uid-$(id -u)`
      await send(rig, key, turnMessage(id, make))
      const history = await turnEnds(rig, key, id)
      const [, sha256 = ''] = /([0-9a-f]{64}) {2}file-/u.exec(history) ?? []
      assert.notEqual(sha256, '', history)
      assert.match(history, new RegExp(`uid-${UID}\\b`, 'u'), 'it ran as the user of the node')
      const found = await waitForProcess('the file is back at the gateway', TURN_LIMIT_MS, () => {
        if (rig.gateway.said().includes(TRANSFER_REFUSED)) return 'refused'
        return findFile(`${rig.directory}/gateway`, file)
      })
      // What a gateway of 2026.8 asks for is not what a node of 2026.9 brings back.
      if (found === 'refused')
        return absent(t, 'the gateway and the node do not agree on transfers')
      assert.equal(sha256Of(found), sha256)
      // The file is there before its upload has been answered.
      await waitForProcess('every route was relayed', TURN_LIMIT_MS, () => {
        const routes = new Set(closedLines(sidecar).map(({ route }) => route))
        return ROUTES.every((route) => routes.has(route))
      })
    },
  )

  testUnless(lack, 'a sidecar that restarts in the middle of a turn lets it end well', async () => {
    const key = await createSession(rig)
    await dispatch(rig, key, { autoDevice: true })
    const id = randomUUID()
    const workers = admittedTo(sidecar, 'worker')
    await send(rig, key, turnMessage(id, 'sleep 8; echo survived'))
    await waitForProcess(
      'the worker is connected',
      TURN_LIMIT_MS,
      () => admittedTo(sidecar, 'worker') > workers,
    )
    await sidecar.stop('SIGKILL')
    await sidecar.start()
    const history = await turnEnds(rig, key, id)
    assert.match(history, /survived/u)
    assert.equal(history.split(`done ${id}`).length, 2, 'nothing is twice in the transcript')
  })

  testUnless(
    lack,
    'the routes are refused without a live stream, with a foreign token, and where hosting is off',
    async () => {
      const other = rig.createPod('worker-no-stream')
      const tokenOf = (pod: RigPod) => ({ 'x-openclaw-sa-token': pod.mint() })
      const asked = [`GET ${PREFIX}worker-bundle/v1/bundles/${HASH}`, `GET ${PREFIX}worker`]
      // An earlier turn may still bring back what it has changed, by other routes.
      const before = countHeads(rig, asked)
      const cases = [
        [other, port, {}, 'session_hosting_no_stream'],
        [other, port, tokenOf(other), 'session_hosting_no_stream'],
        [other, port, tokenOf(host.pod), 'source_address_mismatch'],
        [host.pod, port, tokenOf(other), 'source_address_mismatch'],
        [host.pod, port, { 'x-openclaw-sa-token': 'foreign' }, 'token_malformed'],
        [host.pod, port, { authorization: `Bearer ${other.mint()}` }, 'session_hosting_malformed'],
        [host.pod, rig.ports.workers, {}, 'session_hosting_disabled'],
        [host.pod, rig.ports.workers, tokenOf(host.pod), 'session_hosting_disabled'],
      ] as const
      for (const [pod, at, headers, code] of cases) {
        for (const line of asked) {
          assert.equal(await ask(pod, at, line, headers), code, `${pod.name} ${line}`)
        }
      }
      assert.equal(countHeads(rig, asked), before, 'the gateway was not touched')
    },
  )

  testUnless(
    lack,
    'the sidecar tells that the slots of a host are free, and that a turn uses one',
    async (t) => {
      const total = await slotsOffered(rig, host)
      await slotsTold(sidecar, { free: total, used: 0 })
      const key = await createSession(rig)
      await dispatch(rig, key, { deviceId: host.deviceId })
      const workers = admittedTo(sidecar, 'worker')
      // The next test ends it.
      await send(rig, key, turnMessage(randomUUID(), 'sleep 150'))
      await waitForProcess(
        'the worker is connected',
        TURN_LIMIT_MS,
        () => admittedTo(sidecar, 'worker') > workers,
      )
      await slotsTold(sidecar, { free: total - 1, used: 1 })
      t.diagnostic(`${total} free, then ${total - 1} free and 1 used`)
    },
  )

  testUnless(
    lack,
    'a pod that is deleted in the middle of a turn loses its hosted streams within a second',
    async () => {
      const uploads = admittedTo(sidecar, 'reconciliation')
      const before = closedLines(sidecar).length
      const upload = await openUpload(host.pod, port)
      const uploadEnded = once(upload, 'close')
      await waitForProcess(
        'the upload is relayed',
        READY_LIMIT_MS,
        () => admittedTo(sidecar, 'reconciliation') > uploads,
      )
      const deletedAtMs = Date.now()
      rig.deletePod(host.pod)
      await uploadEnded
      const ends = await waitForProcess('all streams of the pod have ended', READY_LIMIT_MS, () => {
        const lines = closedLines(sidecar).slice(before)
        const isOver = ['worker', 'reconciliation'].every((wanted) =>
          lines.some(({ route, code }) => route === wanted && code === 'pod_deleted'),
        )
        return isOver && lines
      })
      for (const { route, timestamp } of ends) {
        const tookMs = Date.parse(String(timestamp)) - deletedAtMs
        assert.ok(tookMs <= END_LIMIT_MS, `${String(route)} ended after ${tookMs} ms`)
      }
    },
  )

  testUnless(lack, 'hosted sessions leave the port and the nodes of the suite alone', async () => {
    await host.stop()
    await sidecar.stop()
    assert.equal(hostedLines(rig.sidecar).length, 0)
  })
}

type Host = {
  readonly pod: RigPod
  readonly deviceId: string
  readonly stop: () => Promise<void>
}

const startHost = async (rig: ProductRig, port: number): Promise<Host> => {
  const pod = rig.createPod('worker-host')
  // The node's user has to reach its home.
  for (const directory of [tmpdir(), rig.directory]) {
    const { mode } = await stat(directory)
    await chmod(directory, mode | SEARCHABLE)
  }
  const node = await rig.startRealNode(pod, { port, uid: UID, extraArgs: ['--session-host'] })
  const { nodeId } = (await rig.connected(pod.name)) ?? { nodeId: '' }
  await rig.explained(pod.name, () =>
    waitForProcess('the gateway lists the pod as a session host', READY_LIMIT_MS, async () =>
      (await listEnvironments(rig)).some(
        ({ id, sessionHost }) => id === `node:${nodeId}` && sessionHost,
      ),
    ),
  )
  return { pod, deviceId: nodeId, stop: node.stop }
}

type Environment = {
  readonly id: string
  readonly sessionHost?: boolean
  readonly workerSlots?: { readonly total: number }
}

const listEnvironments = async (rig: ProductRig): Promise<readonly Environment[]> => {
  const { environments = [] } = await rig
    .operator()
    .call<{ readonly environments?: readonly Environment[] }>('environments.list')
  return environments
}

const slotsOffered = async (rig: ProductRig, { deviceId }: Host): Promise<number> => {
  const own = (await listEnvironments(rig)).find(({ id }) => id === `node:${deviceId}`)
  assert.ok(own?.workerSlots !== undefined)
  return own.workerSlots.total
}

/** The sidecar asks the gateway some seconds after it has heard of a change. */
const slotsTold = (
  sidecar: Sidecar,
  slots: Readonly<Record<'free' | 'used', number>>,
): Promise<unknown> =>
  waitForProcess(`the metrics show ${JSON.stringify(slots)}`, SLOTS_LIMIT_MS, async () => {
    const text = await sidecar.metrics()
    return Object.entries(slots).every(([state, count]) =>
      text.includes(
        `openclaw_k8s_session_slots{namespace="${NAMESPACE}",state="${state}"} ${count}\n`,
      ),
    )
  })

/** Only a session in a worktree of its own can be hosted. A gateway of 2026.8 makes one of a repository only. */
const createSession = async (rig: ProductRig): Promise<string> => {
  const isFromNothing = hasText(rig.run.gateway, 'worktreeSource')
  const source = isFromNothing ? { worktreeSource: 'empty' } : { cwd: await makeRepository(rig) }
  const request = { worktree: true, ...source, label: `hosted ${randomUUID()}` }
  const { key } = await rig.operator().call<{ readonly key: string }>('sessions.create', request)
  return key
}

const makeRepository = async ({ directory }: ProductRig): Promise<string> => {
  const repository = join(directory, 'gateway', 'repository')
  const git = (...args: readonly string[]) =>
    runProcess({ name: 'git', command: 'git', args: ['-C', repository, ...args] }, GIT_LIMIT_MS)
  if (existsSync(repository)) return repository
  await mkdir(repository)
  await git('init', '--quiet')
  const author = ['-c', 'user.name=suite', '-c', 'user.email=suite@localhost']
  await git(...author, 'commit', '--quiet', '--allow-empty', '-m', 'Begin')
  return repository
}

/** The first one sends the bundle, which takes longer than a call may. */
const dispatch = async (rig: ProductRig, key: string, where: object): Promise<void> => {
  const operator = await rig.gateway.connectOperator(TURN_LIMIT_MS)
  try {
    await rig.explained('worker-host', () => operator.call('sessions.dispatch', { key, ...where }))
  } finally {
    await operator.close()
  }
}

const send = (rig: ProductRig, sessionKey: string, message: string) =>
  rig.operator().call('chat.send', { sessionKey, message, idempotencyKey: randomUUID() })

/** Waits until the model has said the last word of the turn; gives the transcript. */
const turnEnds = (rig: ProductRig, sessionKey: string, id: string): Promise<string> =>
  rig.explained('worker-host', () =>
    waitForProcess(`turn ${id} ends`, TURN_LIMIT_MS, async () => {
      // Without the events of a run under way, which have the same words.
      const { messages = [] } = await rig
        .operator()
        .call<{ readonly messages?: readonly unknown[] }>('chat.history', { sessionKey })
      const history = JSON.stringify(messages)
      return history.includes(`done ${id}`) && history
    }),
  )

const findFile = (directory: string, name: string): string | undefined =>
  execFileSync('find', [directory, '-name', name, '-size', `${FILE_BYTES}c`])
    .toString()
    .split('\n')
    .find((path) => path !== '')

const sha256Of = (path: string): string => hash('sha256', readFileSync(path))

const hostedLines = (sidecar: Pick<Sidecar, 'audit'>) =>
  sidecar.audit().filter(({ event, route }) => event !== 'k8s-auth-failed' && route !== undefined)

const closedLines = (sidecar: Sidecar) =>
  hostedLines(sidecar).filter(({ event }) => event === 'k8s-session-closed')

/** How often a route was let through so far. */
const admittedTo = (sidecar: Sidecar, wanted: string): number =>
  sidecar.audit().filter(({ event, route }) => event === 'k8s-auth-success' && route === wanted)
    .length

/** How many connections to the gateway began with one of these lines. */
const countHeads = ({ relay }: ProductRig, lines: readonly string[]): number =>
  relay.connections.filter(({ head }) => lines.some((line) => head[0] === `${line} HTTP/1.1`))
    .length

const openFrom = async ({ address }: RigPod, port: number): Promise<Socket> => {
  const socket = connect({ host: address, port, localAddress: address })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

/** The code of the answer; an upgrade where the path is a WebSocket's. */
const ask = async (
  pod: RigPod,
  port: number,
  line: string,
  headers: Readonly<Record<string, string>>,
): Promise<string> => {
  const socket = await openFrom(pod, port)
  const upgrade = line.endsWith('/worker')
    ? [
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        `Sec-WebSocket-Key: ${'A'.repeat(22)}==`,
      ]
    : []
  const fields = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
  socket.write(
    [`${line} HTTP/1.1`, `Host: ${pod.address}`, ...upgrade, ...fields, '', ''].join('\r\n'),
  )
  let text = ''
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
  await once(socket, 'end')
  socket.destroy()
  return /"type":"(\w+)"/u.exec(text)?.[1] ?? text
}

/** A transfer that its sender does not complete. */
const openUpload = async (pod: RigPod, port: number): Promise<Socket> => {
  const socket = await openFrom(pod, port)
  const target = `${PREFIX}worker-transfer/v1/environments/worker%3Aabc/reconciliations/${HASH}`
  const head = [`POST ${target} HTTP/1.1`, `Host: ${pod.address}`, 'Authorization: Bearer none']
  socket.write([...head, 'Content-Length: 1000000', '', 'the first bytes'].join('\r\n'))
  return socket.resume()
}
