/** Drives a page of a Chromium by the DevTools protocol: opens it, asks it, takes its picture. */

import { once } from 'node:events'
import { WebSocket } from 'ws'
import type { openChromium } from './chromium.ts'
import { waitForProcess } from './wait.ts'

const READY_MS_MAX = 30_000
const ENDPOINT = /DevTools listening on ws:\/\/([^/\s]+)\//

type Answer = {
  readonly id?: number
  readonly method?: string
  readonly params?: Readonly<Record<string, unknown>>
  readonly result?: Readonly<Record<string, unknown>>
  readonly error?: { readonly message: string }
}

type Target = { readonly type: string; readonly webSocketDebuggerUrl: string }

export type Page = Awaited<ReturnType<typeof attachPage>>

/** The first page of the browser. `close` leaves the browser as it is. */
export const attachPage = async (browser: ReturnType<typeof openChromium>) => {
  const host = await waitForProcess(
    'the browser',
    READY_MS_MAX,
    () => ENDPOINT.exec(browser.said())?.[1],
  )
  const target = await waitForProcess('a page', READY_MS_MAX, async () => {
    const answer = await fetch(`http://${host}/json/list`)
    return ((await answer.json()) as Target[]).find(({ type }) => type === 'page')
  })
  const socket = new WebSocket(target?.webSocketDebuggerUrl ?? '')
  await once(socket, 'open')
  const waiting = new Map<number, (answer: Answer) => void>()
  const events: Answer[] = []
  let sent = 0
  socket.on('message', (data: Buffer) => {
    const answer = JSON.parse(String(data)) as Answer
    if (answer.id === undefined) events.push(answer)
    else waiting.get(answer.id)?.(answer)
  })

  const call = async (method: string, params: Readonly<Record<string, unknown>> = {}) => {
    sent += 1
    const id = sent
    const answer = new Promise<Answer>((resolve) => waiting.set(id, resolve))
    socket.send(JSON.stringify({ id, method, params }))
    const { result, error } = await answer
    waiting.delete(id)
    if (error !== undefined) throw new Error(`${method}: ${error.message}`)
    return result ?? {}
  }

  return {
    call,
    /** What the page and the browser have said: `console`, exceptions, violations of the policy. */
    events: (method: string) => events.filter((event) => event.method === method),
    /** The value of an expression in the page, which must be JSON. */
    async evaluate<T>(expression: string): Promise<T> {
      const { result } = await call('Runtime.evaluate', {
        expression,
        returnByValue: true,
        awaitPromise: true,
        // As a script of the page would find it.
        allowUnsafeEvalBlockedByCSP: false,
      })
      return (result as { readonly value: T }).value
    },
    /** A PNG of the whole page. */
    async screenshot(): Promise<Buffer> {
      const { cssContentSize } = await call('Page.getLayoutMetrics')
      const { width, height } = cssContentSize as {
        readonly width: number
        readonly height: number
      }
      const { data } = await call('Page.captureScreenshot', {
        captureBeyondViewport: true,
        clip: { x: 0, y: 0, width, height, scale: 1 },
      })
      return Buffer.from(data as string, 'base64')
    },
    close: () => socket.terminate(),
  }
}
