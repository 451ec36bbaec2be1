/** Asks a running `connect` whether it answers: the exec probe of its container. */

import { request } from 'node:http'
import type { Clock } from '../lib/clock.ts'
import type { Listen } from './connect-port.ts'

const ANSWER_MS_MAX = 2000
/** What a plain GET of the worker's path is answered: no other server of a pod says that. */
const EXPECTED_STATUS = 426

/** Rejects when it does not answer in time. */
export function checkConnect(listen: Listen, clock: Clock): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const place =
    listen.kind === 'unix' ? { socketPath: listen.path } : { host: listen.host, port: listen.port }
  const call = request({ ...place, agent: false, setHost: false, headers: { Host: 'localhost' } })
  const cancel = clock.after(ANSWER_MS_MAX, () => {
    call.destroy(new Error(`no answer within ${ANSWER_MS_MAX} ms`))
  })
  call.on('error', reject)
  call.once('response', (response) => {
    response.on('error', () => {}).resume()
    if (response.statusCode === EXPECTED_STATUS) resolve()
    else reject(new Error(`it answered ${response.statusCode}`))
  })
  call.end()
  return promise.finally(() => {
    cancel()
    call.destroy()
  })
}
