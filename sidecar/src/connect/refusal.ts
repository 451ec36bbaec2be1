/** Reads how the gateway's sidecar refuses a stream, so that the worker is told in its words. */

import type { IncomingMessage } from 'node:http'
import type { Clock } from '../lib/clock.ts'
import { ignoreError } from '../lib/peer-errors.ts'
import { Unavailable } from './codes.ts'

export type Refusal = {
  /** From 400 to 599. */
  readonly status: number
  /** JSON of at most 2048 bytes. */
  readonly body: string
  readonly retryAfter: string | undefined
}

/** A node prints no longer body, in bytes. */
const BODY_BYTES_MAX = 2048
/** For reading the body, in milliseconds. */
const BODY_MS_MAX = 5000
const RETRY_AFTER = /^\d{1,6}$/

/** Rejects with `Unavailable` when the answer is not a refusal. */
export async function readRefusal(response: IncomingMessage, clock: Clock): Promise<Refusal> {
  const { statusCode: status = 0, headers } = response
  response.on('error', ignoreError)
  if (status < 400 || status > 599) {
    response.destroy()
    throw new Unavailable('sidecar_answer_invalid', `an upgrade was answered ${status}`)
  }
  const retryAfter = headers['retry-after']
  return {
    status,
    body: (await readJson(response, clock)) ?? describe(status),
    retryAfter: retryAfter !== undefined && RETRY_AFTER.test(retryAfter) ? retryAfter : undefined,
  }
}

const describe = (status: number): string =>
  JSON.stringify({ error: { type: 'refused', message: `The gateway's side answered ${status}.` } })

/** The body if it is JSON, short and complete; the connection has ended then. */
async function readJson(response: IncomingMessage, clock: Clock): Promise<string | undefined> {
  const cancel = clock.after(BODY_MS_MAX, () => response.destroy())
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      size += chunk.length
      // Leaving the loop destroys the response, and with it the connection.
      if (size > BODY_BYTES_MAX) return undefined
      chunks.push(chunk)
    }
    const text = Buffer.concat(chunks).toString()
    JSON.parse(text)
    return text
  } catch {
    return undefined
  } finally {
    cancel()
    response.destroy()
  }
}
