/** A light node: speaks the node protocol as the real one does, without its weight. */

import { createHash, generateKeyPairSync, randomUUID, sign, type KeyObject } from 'node:crypto'
import { WebSocket, type RawData } from 'ws'

export type Frame = {
  readonly type: string
  readonly id?: string
  readonly event?: string
  readonly method?: string
  readonly ok?: boolean
  readonly payload?: Readonly<Record<string, unknown>>
  readonly error?: {
    readonly code?: string
    readonly message?: string
    readonly details?: Readonly<Record<string, unknown>>
  }
}

export type Device = {
  readonly id: string
  readonly publicKey: string
  readonly privateKey: KeyObject
}

type Proof = {
  readonly nonce: string
  readonly signedAt: number
  readonly signature: string
}

export type ConnectParams = {
  readonly device: Device
  /** What goes into `auth`; the signed token member follows from it. */
  readonly auth?: Readonly<Record<string, string>>
  readonly role?: string
  readonly scopes?: readonly string[]
  readonly mode?: string
  readonly clientId?: string
  readonly commands?: readonly string[]
  /** Other members of what it offers, such as `caps`. */
  readonly offer?: Readonly<Record<string, unknown>>
  readonly version?: 'v2' | 'v3'
  /** Shown in place of the device's own id. */
  readonly deviceId?: string
  readonly displayName?: string
  /** Further members of `client`. */
  readonly client?: Readonly<Record<string, unknown>>
  /** The oldest and the newest protocol it offers. Default 4 and 4. */
  readonly protocols?: readonly [number, number]
  /** Shown in place of a fresh proof. */
  readonly proof?: Proof
}

export type LightNodeOptions = ConnectParams & {
  readonly url: string
  /** The pod's own address, which the connection comes from. */
  readonly localAddress: string
  readonly headers?: Readonly<Record<string, string>>
  readonly ca?: string
}

export type LightNode = Awaited<ReturnType<typeof openLightNode>>

const COMMANDS: readonly string[] = ['system.run', 'system.run.prepare', 'system.which']

const ANSWER_LIMIT_MS = 30_000
const FRAMES_MAX = 2000

export const createDevice = (): Device => {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const raw = Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url')
  return {
    id: createHash('sha256').update(raw).digest('hex'),
    publicKey: raw.toString('base64url'),
    privateKey,
  }
}

/** The `connect` request that answers a challenge. */
export const connectFrame = (nonce: string, ts: number, params: ConnectParams) => {
  const { device, auth = {}, role = 'node', scopes = [], version = 'v3' } = params
  const [minProtocol, maxProtocol] = params.protocols ?? [4, 4]
  const clientId = params.clientId ?? 'node-host'
  const mode = params.mode ?? 'node'
  const token = auth['token'] ?? auth['deviceToken'] ?? auth['bootstrapToken'] ?? ''
  const id = params.deviceId ?? device.id
  const signed = [version, id, clientId, mode, role, scopes.join(','), ts, token, nonce]
  const payload = [...signed, ...(version === 'v3' ? ['linux', 'linux'] : [])].join('|')
  const proof = params.proof ?? {
    nonce,
    signedAt: ts,
    signature: sign(null, Buffer.from(payload), device.privateKey).toString('base64url'),
  }
  return {
    type: 'req',
    id: `1:${randomUUID()}`,
    method: 'connect',
    params: {
      minProtocol,
      maxProtocol,
      client: {
        id: clientId,
        displayName: params.displayName ?? 'a-name-of-its-own-choice',
        version: '2026.9.6',
        platform: 'linux',
        deviceFamily: 'Linux',
        mode,
        instanceId: randomUUID(),
        ...params.client,
      },
      caps: ['system'],
      commands: params.commands ?? COMMANDS,
      ...params.offer,
      pathEnv: '/usr/bin:/bin',
      auth,
      role,
      scopes,
      device: { id, publicKey: device.publicKey, ...proof },
    },
  }
}

/** Opens the socket and waits for the challenge, or for the refusal of the upgrade. */
export const openLightNode = async (options: LightNodeOptions) => {
  const socket = new WebSocket(options.url, {
    perMessageDeflate: false,
    localAddress: options.localAddress,
    headers: { ...options.headers },
    ...(options.ca === undefined ? {} : { ca: options.ca }),
  })
  const frames: Frame[] = []
  const waiting = new Set<{ wants: (frame: Frame) => boolean; give: (frame: Frame) => void }>()
  const closed = new Promise<{ readonly code: number; readonly reason: string }>((resolve) => {
    socket.once('close', (code, reason) => resolve({ code, reason: reason.toString() }))
  })
  socket.on('error', () => {})
  socket.on('message', (data: RawData) => {
    const frame = JSON.parse((data as Buffer).toString()) as Frame
    frames.push(frame)
    if (frames.length > FRAMES_MAX) frames.shift()
    answerInvoke(socket, frame)
    for (const waiter of waiting) {
      if (!waiter.wants(frame)) continue
      waiting.delete(waiter)
      waiter.give(frame)
    }
  })

  /** The first such frame, seen already or yet to come; none when the socket closes before it. */
  const next = async (wants: (frame: Frame) => boolean): Promise<Frame | undefined> => {
    const seen = frames.find(wants)
    if (seen !== undefined) return seen
    const { promise, resolve } = Promise.withResolvers<Frame | undefined>()
    waiting.add({ wants, give: resolve })
    void closed.then(() => resolve(undefined))
    const timer = setTimeout(() => resolve(undefined), ANSWER_LIMIT_MS)
    const frame = await promise
    clearTimeout(timer)
    return frame
  }

  const challenge = await next((frame) => frame.event === 'connect.challenge')
  const { nonce = '', ts = 0 } = (challenge?.payload ?? {}) as { nonce?: string; ts?: number }

  const request = (frame: { readonly id: string }): Promise<Frame | undefined> => {
    socket.send(JSON.stringify(frame))
    return next(({ type, id }) => type === 'res' && id === frame.id)
  }
  return {
    socket,
    frames: frames as readonly Frame[],
    closed,
    challenge: { nonce, ts },
    next,
    request,
    call: (method: string, params: object = {}) =>
      request({ type: 'req', id: randomUUID(), method, params } as { readonly id: string }),
    /** Answers the challenge; gives hello-ok or the refusal, or nothing when the socket just closed. */
    connect: (params: Partial<ConnectParams> = {}) =>
      request(connectFrame(nonce, ts, { ...options, ...params })),
    end: (): void => socket.terminate(),
  }
}

/** Opens, connects and wants to be let in. */
export const connectLightNode = async (options: LightNodeOptions): Promise<LightNode> => {
  const node = await openLightNode(options)
  const hello = await node.connect()
  if (hello?.ok === true) return node
  const why = hello?.error ?? (await node.closed)
  throw new Error(`the light node was not let in: ${JSON.stringify(why)}`)
}

const answerInvoke = (socket: WebSocket, { event, payload }: Frame): void => {
  if (event !== 'node.invoke.request' || payload === undefined) return
  const { id, nodeId, command } = payload
  const bins = { bins: { uname: '/usr/bin/uname' } }
  const result =
    command === 'system.which'
      ? { ok: true, payloadJSON: JSON.stringify(bins) }
      : { ok: false, error: { code: 'UNAVAILABLE', message: 'a light node runs nothing' } }
  const params = { id, nodeId, ...result }
  const frame = { type: 'req', id: randomUUID(), method: 'node.invoke.result', params }
  socket.send(JSON.stringify(frame))
}
