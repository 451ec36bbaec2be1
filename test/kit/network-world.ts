/** Networks with IPv6 alone, with both families, and without IPv6: each in a namespace that ends with the test. */

import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { findNamespace, runInside } from './namespace.ts'
import type { Observed } from './network-world-inside.ts'

/** What a machine of the world has besides loopback. */
export type World = {
  /** Whether the kernel can make sockets of IPv6. */
  readonly hasIpv6: boolean
  /** Without it even loopback has no IPv4 address. */
  readonly hasIpv4: boolean
  /** `path=value`; both ports listen where they do by default. */
  readonly set?: readonly string[]
  /** The same, for the doctor alone. */
  readonly doctorSet?: readonly string[]
}

/** Set where a world that cannot be made is a failure. */
const REQUIRED = 'REQUIRE_NETWORK_NAMESPACE'
const INSIDE = fileURLToPath(new URL('network-world-inside.ts', import.meta.url))

/** Why no world can be made here; `undefined` where one can. */
export const whyNoWorld = (): string | undefined => {
  const why = findObstacle()
  if (why !== undefined && process.env[REQUIRED] !== undefined) {
    throw new Error(`${REQUIRED} is set, but ${why}`)
  }
  return why
}

const findObstacle = (): string | undefined => {
  const namespace = findNamespace()
  if ('why' in namespace) return namespace.why
  try {
    execFileSync('python3', ['--version'], { stdio: 'ignore' })
    return undefined
  } catch {
    return 'there is no python3, which takes IPv6 from a process'
  }
}

/** Plays the scenario in a new world, and resolves with what was seen there. */
export const observe = async (world: World): Promise<Observed> => {
  const namespace = findNamespace()
  if ('why' in namespace) throw new Error(namespace.why)
  let observed: Observed | undefined
  const inside = runInside(namespace.args, INSIDE, [JSON.stringify(world)], (message) => {
    observed = message as Observed
    return true
  })
  await inside.exited
  if (observed === undefined) throw new Error('the scenario did not come to its end')
  return observed
}
