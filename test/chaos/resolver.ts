/** A resolver for the test: it knows one name, and can be slow, silent or without an answer. */

import { createSocket } from 'node:dgram'
import { once } from 'node:events'

export type Resolver = Awaited<ReturnType<typeof startResolver>>

const HEADER_BYTES = 12
const RECORD_A = 1
const ANSWER = 0x8180
const NO_ADDRESS = 0x8183
const POINTER_TO_NAME = 0xc00c
const IN = 1
const TTL_SECONDS = 0

export const startResolver = async (host: string, name: string, address: string) => {
  const socket = createSocket('udp4')
  let delayMs = 0
  let isSilent = false
  let queries = 0
  socket.on('message', (query, { port, address: asker }) => {
    queries += 1
    if (isSilent) return
    const reply = answer(query, name, address)
    // The run may have ended meanwhile.
    setTimeout(() => {
      if (isOpen) socket.send(reply, port, asker, () => {})
    }, delayMs)
  })
  let isOpen = true
  socket.on('error', () => {})
  socket.bind(53, host)
  await once(socket, 'listening')
  return {
    queries: () => queries,
    slow(ms: number): void {
      delayMs = ms
    },
    silence(): void {
      isSilent = true
    },
    heal(): void {
      delayMs = 0
      isSilent = false
    },
    stop: async (): Promise<void> => {
      isOpen = false
      socket.close()
      await once(socket, 'close')
    },
  }
}

const answer = (query: Buffer, name: string, address: string): Buffer => {
  let end = HEADER_BYTES
  const labels: string[] = []
  for (let length = query[end] ?? 0; length > 0; length = query[end] ?? 0) {
    labels.push(query.toString('latin1', end + 1, end + 1 + length))
    end += length + 1
  }
  const question = query.subarray(HEADER_BYTES, end + 5)
  const isKnown = labels.join('.').toLowerCase() === name
  const hasAddress = isKnown && query.readUInt16BE(end + 1) === RECORD_A
  const head = Buffer.alloc(HEADER_BYTES)
  query.copy(head, 0, 0, 2)
  head.writeUInt16BE(isKnown ? ANSWER : NO_ADDRESS, 2)
  head.writeUInt16BE(1, 4)
  head.writeUInt16BE(hasAddress ? 1 : 0, 6)
  if (!hasAddress) return Buffer.concat([head, question])
  const record = Buffer.alloc(16)
  record.writeUInt16BE(POINTER_TO_NAME, 0)
  record.writeUInt16BE(RECORD_A, 2)
  record.writeUInt16BE(IN, 4)
  record.writeUInt32BE(TTL_SECONDS, 6)
  record.writeUInt16BE(4, 10)
  for (const [n, part] of address.split('.').entries()) record[12 + n] = Number(part)
  return Buffer.concat([head, question, record])
}
