/** Calls the admin port of the sidecar that runs in the same container. */

import { Agent } from 'undici'
import type { Clock } from '../clock.ts'
import { withDeadline } from '../deadline.ts'

export type AdminCall = {
  readonly origin: string
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly deadlineMs: number
  readonly clock: Clock
}

export type AdminAnswer = { readonly status: number; readonly text: string }

/** A longer answer is none of the sidecar's, in bytes. */
const ANSWER_BYTES_MAX = 64 * 1024

/** Rejects when nothing answers in time. */
export async function callAdmin(call: AdminCall): Promise<AdminAnswer> {
  const { origin, method, path, headers = {}, deadlineMs, clock } = call
  const agent = new Agent({
    maxResponseSize: ANSWER_BYTES_MAX,
    // The deadline is the only one: the answer to a drain takes as long as the drain.
    headersTimeout: 0,
    bodyTimeout: 0,
  })
  try {
    return await withDeadline(clock, deadlineMs, async (signal) => {
      const answer = await agent.request({ origin, path, method, headers, signal })
      return { status: answer.statusCode, text: await answer.body.text() }
    })
  } finally {
    await agent.destroy()
  }
}
