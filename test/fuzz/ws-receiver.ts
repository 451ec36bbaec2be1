/** The second opinion on frames: what the receiver of `ws` makes of the same bytes. */

import * as ws from 'ws'

export type Opinion = {
  /** Whole messages in their order. */
  readonly messages: readonly { readonly data: Buffer; readonly isBinary: boolean }[]
  readonly pings: readonly Buffer[]
  /** The status of the close frame; 1005 for one without. */
  readonly closeCode: number | undefined
  /** Why it refused, as `ws` codes it. */
  readonly objection: string | undefined
}

export type ReceiverOptions = {
  /** Whether the frames are a client's, and so must be masked. */
  readonly masked: boolean
  /** 0 for no limit. */
  readonly messageBytesMax?: number
  readonly isUtf8Checked: boolean
}

const WRITE = '_write'

/** `ws` exports its receiver; its types do not say so. */
type Receiver = {
  on: (event: string, listener: (...values: readonly never[]) => void) => void
  readonly [WRITE]: (
    chunk: Buffer,
    encoding: string,
    done: (error?: Error & { code?: string }) => void,
  ) => void
}
const { Receiver: WsReceiver } = ws as unknown as {
  readonly Receiver: new (options: object) => Receiver
}

/** Its write is called directly, since a stream would tell of an error a turn later. */
export const askWs = (frames: Buffer, options: ReceiverOptions): Opinion => {
  const receiver = new WsReceiver({
    isServer: options.masked,
    maxPayload: options.messageBytesMax ?? 0,
    skipUTF8Validation: !options.isUtf8Checked,
    allowSynchronousEvents: true,
  })
  const messages: { readonly data: Buffer; readonly isBinary: boolean }[] = []
  const pings: Buffer[] = []
  let closeCode: number | undefined
  let objection: string | undefined
  receiver.on('message', (data: Buffer, isBinary: boolean) => messages.push({ data, isBinary }))
  receiver.on('ping', (data: Buffer) => pings.push(data))
  receiver.on('conclude', (code: number) => {
    closeCode = code
  })
  // It unmasks in place.
  receiver[WRITE](Buffer.from(frames), '', (error) => {
    objection ??= error?.code ?? error?.message
  })
  return { messages, pings, closeCode, objection }
}
