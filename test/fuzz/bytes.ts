/** Random bytes with a meaning: WebSocket frames lawful and not, mutations of them, and cuts into chunks. */

import * as fc from 'fast-check'

const OPCODES = [0x0, 0x1, 0x2, 0x8, 0x9, 0xa] as const

export const bytes = (lengthMax: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength: lengthMax }).map((array) => Buffer.from(array))

export const fixedBytes = (length: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array))

export type FrameParts = {
  readonly first: number
  readonly masked: boolean
  readonly payload: Buffer
  readonly mask: Buffer
  /** Bytes that hold the length; the fewest possible unless given. */
  readonly lengthBytes?: 0 | 2 | 8 | undefined
  /** The length in the header, if it is not the payload's. */
  readonly toldLength?: bigint | undefined
}

/** The frame of these parts, however unlawful. */
export const frameOf = (parts: FrameParts): Buffer => {
  const { first, masked, payload, mask } = parts
  const told = parts.toldLength ?? BigInt(payload.length)
  const fewest = told < 126n ? 0 : told < 65_536n ? 2 : 8
  const lengthBytes = Math.max(parts.lengthBytes ?? fewest, fewest)
  const head = Buffer.alloc(2 + lengthBytes)
  head[0] = first
  head[1] = (masked ? 0x80 : 0) | (lengthBytes === 0 ? Number(told) : lengthBytes === 2 ? 126 : 127)
  if (lengthBytes === 2) head.writeUInt16BE(Number(told), 2)
  if (lengthBytes === 8) head.writeBigUInt64BE(told, 2)
  if (!masked) return Buffer.concat([head, payload])
  return Buffer.concat([head, mask, payload.map((byte, at) => byte ^ (mask[at & 3] ?? 0))])
}

/** Statuses a close frame may carry (RFC 6455 §7.4), most of the time. */
const closePayload: fc.Arbitrary<Buffer> = fc.oneof(
  { weight: 1, arbitrary: fc.constant(Buffer.alloc(0)) },
  {
    weight: 3,
    arbitrary: fc
      .tuple(fc.constantFrom(1000, 1001, 1008, 1011, 3000, 4999), fc.string({ maxLength: 20 }))
      .map(([code, reason]) => closePayloadOf(code, Buffer.from(reason))),
  },
)

export const closePayloadOf = (code: number, reason: Buffer): Buffer => {
  const payload = Buffer.alloc(2 + reason.length)
  payload.writeUInt16BE(code)
  reason.copy(payload, 2)
  return payload
}

const payload: fc.Arbitrary<Buffer> = fc.oneof(
  { weight: 4, arbitrary: bytes(20) },
  {
    weight: 2,
    arbitrary: fc.string({ unit: 'binary', maxLength: 20 }).map((text) => Buffer.from(text)),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(0, 1, 124, 125, 126, 127, 300).map((n) => Buffer.alloc(n, 'a')),
  },
  { weight: 1, arbitrary: fc.constantFrom(65_535, 65_536).map((n) => Buffer.alloc(n, 'b')) },
)

/** One frame of a conversation that continues lawfully. */
type Step = {
  readonly kind: 'data' | 'part' | 'ping' | 'pong' | 'close'
  readonly parts: FrameParts
}

const step = (masked: boolean): fc.Arbitrary<Step> =>
  fc
    .tuple(
      fc.oneof(
        { weight: 8, arbitrary: fc.constantFrom('data' as const, 'part' as const) },
        { weight: 4, arbitrary: fc.constantFrom('ping' as const, 'pong' as const) },
        { weight: 1, arbitrary: fc.constant('close' as const) },
      ),
      payload,
      closePayload,
      fc.boolean(),
      fixedBytes(4),
    )
    .map(([kind, data, closing, isText, mask]) => {
      const content =
        kind === 'close'
          ? closing
          : kind === 'data' || kind === 'part'
            ? data
            : data.subarray(0, 125)
      return { kind, parts: { first: isText ? 1 : 2, masked, payload: content, mask } }
    })

/** Puts FIN and continuation where they belong. */
const inOrder = (steps: readonly Step[]): readonly Buffer[] => {
  let isInMessage = false
  return steps.map(({ kind, parts }) => {
    if (kind === 'ping') return frameOf({ ...parts, first: 0x89 })
    if (kind === 'pong') return frameOf({ ...parts, first: 0x8a })
    if (kind === 'close') return frameOf({ ...parts, first: 0x88 })
    const first = (kind === 'data' ? 0x80 : 0) | (isInMessage ? 0 : parts.first)
    isInMessage = kind === 'part'
    return frameOf({ ...parts, first })
  })
}

/** A lawful conversation; what follows its close frame never counts. */
export const lawfulFrames = (masked: boolean, framesMax = 12): fc.Arbitrary<Buffer> =>
  fc.array(step(masked), { maxLength: framesMax }).map((steps) => Buffer.concat(inOrder(steps)))

/** A frame with anything in its header. */
const anyFrame = (masked: boolean): fc.Arbitrary<Buffer> =>
  fc
    .record({
      fin: fc.boolean(),
      rsv: fc.oneof({ weight: 6, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(7) }),
      opcode: fc.oneof(
        { weight: 6, arbitrary: fc.constantFrom(...OPCODES) },
        { weight: 1, arbitrary: fc.nat(15) },
      ),
      isMaskWrong: fc.nat(4).map((n) => n === 0),
      payload,
      mask: fixedBytes(4),
      lengthBytes: fc.option(fc.constantFrom(0 as const, 2 as const, 8 as const), {
        nil: undefined,
        freq: 3,
      }),
      toldLength: fc.option(
        fc.constantFrom(
          0n,
          125n,
          126n,
          65_535n,
          65_536n,
          2n ** 53n - 1n,
          2n ** 53n,
          2n ** 63n,
          2n ** 64n - 1n,
        ),
        { nil: undefined, freq: 12 },
      ),
    })
    .map(({ fin, rsv, opcode, isMaskWrong, ...rest }) =>
      frameOf({
        ...rest,
        first: (fin ? 0x80 : 0) | (rsv << 4) | opcode,
        masked: masked !== isMaskWrong,
      }),
    )

/** Changes a few bytes, takes some out or puts some in. */
export type Mutation = { readonly at: number; readonly removed: number; readonly inserted: Buffer }

export const mutation: fc.Arbitrary<Mutation> = fc.record({
  at: fc.oneof(fc.nat(40), fc.nat(2000)),
  removed: fc.nat(3),
  inserted: bytes(3),
})

export const mutate = (original: Buffer, mutations: readonly Mutation[]): Buffer =>
  mutations.reduce<Buffer>((changed, { at, removed, inserted }) => {
    const start = changed.length === 0 ? 0 : at % (changed.length + 1)
    return Buffer.concat([changed.subarray(0, start), inserted, changed.subarray(start + removed)])
  }, original)

const mutated = (original: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> =>
  fc.tuple(original, fc.array(mutation, { maxLength: 3 })).map(([whole, by]) => mutate(whole, by))

/** What one side of a WebSocket is allowed to send, and what is unlawful. */
export const frames = (masked: boolean): fc.Arbitrary<Buffer> =>
  fc.oneof(
    { weight: 4, arbitrary: lawfulFrames(masked) },
    { weight: 3, arbitrary: mutated(lawfulFrames(masked)) },
    {
      weight: 3,
      arbitrary: fc
        .tuple(lawfulFrames(masked, 4), fc.array(anyFrame(masked), { maxLength: 4 }))
        .map(([lawful, any]) => Buffer.concat([lawful, ...any])),
    },
    { weight: 1, arbitrary: bytes(60) },
  )

/** Where to cut; sizes of chunks that are used over and over. */
export const chunkSizes: fc.Arbitrary<readonly number[]> = fc.array(
  fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 200 })),
  { minLength: 1, maxLength: 6 },
)

/** Copies, as a socket gives them: what one chunk holds nobody else does. */
export const cut = (whole: Buffer, sizes: readonly number[]): readonly Buffer[] => {
  const chunks: Buffer[] = []
  for (let at = 0, nth = 0; at < whole.length; nth += 1) {
    const size = Math.max(sizes[nth % sizes.length] ?? 1, whole.length > 10_000 ? 500 : 1)
    chunks.push(Buffer.from(whole.subarray(at, at + size)))
    at += size
  }
  return chunks
}
