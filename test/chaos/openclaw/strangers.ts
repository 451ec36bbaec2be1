/** Nodes without a right to come in, before the real gateway. */

import { setTimeout as sleep } from 'node:timers/promises'
import { createDevice, openLightNode } from '../../kit/light-node.ts'
import type { Judged, Pretence } from '../answers.ts'

export type ProductStranger = {
  readonly pretence: Pretence
  readonly token: string
  readonly url: string
  readonly address: string
}
export type ProductTrial = Judged & {
  readonly stranger: ProductStranger
  readonly startedAt: number
}

/** As long as the handshake may take, and a moment more. */
const ANSWER_MS = 15_000

export const tryProduct = async (stranger: ProductStranger): Promise<ProductTrial> => {
  const { pretence, token, url, address } = stranger
  const startedAt = performance.now()
  const opening = openLightNode({
    url,
    localAddress: address,
    device: createDevice(),
    auth: { token },
  })
  const told = (async () => {
    const node = await opening
    const hello = await node.connect()
    if (hello?.ok === true) return { outcome: 'in' as const, code: '' }
    const { reason } = await node.closed
    return reason === ''
      ? { outcome: 'no answer' as const, code: '' }
      : { outcome: 'refused' as const, code: reason }
  })()
  const late = { outcome: 'no answer' as const, code: '' }
  const { outcome, code } = await Promise.race([told, sleep(ANSWER_MS, late)])
  void opening.then(
    (node) => node.end(),
    () => {},
  )
  return { stranger, startedAt, pretence, outcome, code }
}
