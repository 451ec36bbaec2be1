/** What a worker says and hears: how it gets in, and the messages that must come back in order. */

import { connectFrame, createDevice, type Device, type Frame } from '../kit/light-node.ts'
import type { Speech } from './schedule.ts'

/** What a message means to a worker. */
type Heard =
  | { readonly kind: 'in' | 'refused' | 'nothing' }
  /** The answer to the worker's message of this ordinal. */
  | { readonly kind: 'answer'; readonly ordinal: number }
  | { readonly kind: 'broken' }

export type Conversation = {
  /** Whether the token goes into the upgrade. */
  readonly isAtUpgrade: boolean
  /** Whether the worker is in once its socket is open. */
  readonly isInAtOnce: boolean
  /** What it says first, if it has the first word. */
  readonly begin: (token: string) => string | undefined
  /** What a message means, and what must be said to it. */
  readonly read: (data: Buffer, token: string) => { readonly heard: Heard; readonly say?: string }
  /** A message that says which one it is. */
  readonly write: (ordinal: number, size: number) => Buffer | string
}

/** The bytes of a message are its ordinal modulo this. */
const FILLS = 251

const isFilled = (bytes: Buffer, fill: number): boolean =>
  bytes.length === 0 ||
  (bytes[0] === fill && bytes.subarray(1).equals(bytes.subarray(0, bytes.length - 1)))

/** Of `stream` the gateway sends back what it gets. */
const writeFilled = (ordinal: number, size: number): Buffer => {
  const message = Buffer.alloc(size, ordinal % FILLS)
  message.writeUInt32BE(ordinal)
  return message
}

const readFilled = (data: Buffer): Heard => {
  if (data.length < 4) return { kind: 'broken' }
  const ordinal = data.readUInt32BE()
  const isWhole = isFilled(data.subarray(4), ordinal % FILLS)
  return isWhole ? { kind: 'answer', ordinal } : { kind: 'broken' }
}

const talkStream = (): Conversation => ({
  isAtUpgrade: true,
  isInAtOnce: true,
  begin: () => undefined,
  read: (data) => ({ heard: readFilled(data) }),
  write: writeFilled,
})

const talkStreamInBand = (): Conversation => {
  let isIn = false
  const readAnswer = (data: Buffer): Heard => {
    const { success } = JSON.parse(data.toString()) as { readonly success?: boolean }
    isIn = success === true
    return { kind: isIn ? 'in' : 'refused' }
  }
  return {
    isAtUpgrade: false,
    isInAtOnce: false,
    begin: (saToken) =>
      JSON.stringify({ type: 'connect.request', authMode: 'k8s-sa', saToken, role: 'node' }),
    read: (data) => ({ heard: isIn ? readFilled(data) : readAnswer(data) }),
    write: writeFilled,
  }
}

/** The gateway answers each event of a node with the event itself. */
const talkOpenClaw = (device: Device): Conversation => {
  let connectId = ''
  const answer = (challenge: Frame, token: string): string => {
    const { nonce, ts } = challenge.payload as { readonly nonce: string; readonly ts: number }
    const connect = connectFrame(nonce, ts, { device, auth: { token }, commands: OFFERED })
    connectId = connect.id
    return JSON.stringify(connect)
  }
  return {
    isAtUpgrade: false,
    isInAtOnce: false,
    begin: () => undefined,
    read(data, token) {
      const frame = JSON.parse(data.toString()) as Frame
      if (frame.event === 'connect.challenge') {
        return { heard: { kind: 'nothing' }, say: answer(frame, token) }
      }
      if (frame.type !== 'res') return { heard: { kind: 'nothing' } }
      if (frame.id === connectId) return { heard: { kind: frame.ok === true ? 'in' : 'refused' } }
      const ordinal = Number(frame.id)
      const event = String(frame.payload?.['event'])
      const isWhole = frame.ok === true && isFilled(Buffer.from(event), fillOf(ordinal))
      return { heard: isWhole ? { kind: 'answer', ordinal } : { kind: 'broken' } }
    },
    write: (ordinal, size) =>
      JSON.stringify({
        type: 'req',
        id: String(ordinal),
        method: 'node.event',
        params: { event: Buffer.alloc(size, fillOf(ordinal)).toString() },
      }),
  }
}

/** A letter. */
const fillOf = (ordinal: number): number => 97 + (ordinal % 26)

/** What each node offers; the policy may allow less. */
export const OFFERED = ['system.run', 'system.which', 'camera.snap'] as const

/** A worker's way to begin a conversation on each of its connections. */
export const createSpeaker = (speech: Speech): (() => Conversation) => {
  if (speech === 'stream') return talkStream
  if (speech === 'stream-in-band') return talkStreamInBand
  const device = createDevice()
  return () => talkOpenClaw(device)
}
