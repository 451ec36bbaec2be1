/** Reads why the gateway refuses an upgrade of undici's WebSocket, which tells only that it failed. */

import type { Dispatcher } from 'undici'
import type { GatewayRefused } from '../../gateway-refusal.ts'
import type { Clock } from '../../lib/clock.ts'
import { RefusalReader } from '../../tunnel/refusal-reader.ts'

type Options = {
  readonly clock: Clock
  /** May be called more than once; the first call counts. */
  readonly onRefused: (refused: GatewayRefused) => void
}

/** An interceptor. An answer other than 101 goes no further than here. */
export const readRefusedUpgrade =
  ({ clock, onRefused }: Options): Dispatcher.DispatcherComposeInterceptor =>
  (dispatch) =>
  (request, handler) => {
    let reader: RefusalReader | undefined
    return dispatch(request, {
      onRequestStart: (...started) => handler.onRequestStart?.(...started),
      onRequestUpgrade: (...upgraded) => handler.onRequestUpgrade?.(...upgraded),
      onResponseStart(_controller, status) {
        if (status < 200) return
        // undici decodes the body and checks its length.
        const refusal = { status, contentLength: undefined, isChunked: false }
        reader = new RefusalReader({ ...refusal, clock, onRead: onRefused })
      },
      onResponseData: (_controller, chunk) => reader?.read(chunk),
      onResponseEnd() {
        if (reader !== undefined) onRefused(reader.end())
      },
      onResponseError(controller, error) {
        if (reader !== undefined) onRefused(reader.end())
        handler.onResponseError?.(controller, error)
      },
    })
  }
