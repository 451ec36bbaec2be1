/** A light node that comes back whenever it is refused or cut off. */

import { setTimeout as sleep } from 'node:timers/promises'
import { createDevice, openLightNode, type LightNode } from '../../kit/light-node.ts'
import type { RigPod } from '../../openclaw/product-rig.ts'

const COME_BACK_MS = 1000

export class ReturningNode {
  readonly pod: RigPod
  readonly token: string
  readonly ends: { readonly at: number; readonly code: number; readonly reason: string }[] = []
  admitted = 0
  isOpen = false
  readonly #device = createDevice()
  #isLiving = true
  #node: LightNode | undefined
  #life: Promise<void> | undefined

  constructor(pod: RigPod) {
    this.pod = pod
    this.token = pod.mint()
  }

  live(): void {
    this.#life = this.#comeBackAlways()
  }

  async leave(): Promise<void> {
    this.#isLiving = false
    this.#node?.end()
    await this.#life
  }

  async #comeBackAlways(): Promise<void> {
    while (this.#isLiving) {
      // A socket that a frozen sidecar has not answered cannot be written to.
      await this.#visit().catch(() => {})
      this.#node?.end()
      if (this.#isLiving) await sleep(COME_BACK_MS)
    }
  }

  async #visit(): Promise<void> {
    const node = await openLightNode({
      url: this.pod.url,
      localAddress: this.pod.address,
      device: this.#device,
      auth: { token: this.token },
    })
    this.#node = node
    const hello = await node.connect()
    if (hello?.ok !== true) return
    this.admitted += 1
    this.isOpen = true
    if (!this.#isLiving) node.end()
    this.ends.push({ ...(await node.closed), at: performance.now() })
    this.isOpen = false
  }
}
