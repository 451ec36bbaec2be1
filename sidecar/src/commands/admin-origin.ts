/** Where a command finds the admin port of the sidecar in its container. */

import { localOriginOf } from '../config/addresses.ts'
import { ConfigError } from '../config/config-error.ts'
import type { Config } from '../config/schema.ts'

/** Throws a `ConfigError` where the configuration does not say the port. */
export function findAdminOrigin({ listen }: Config): string {
  const origin = localOriginOf(listen.admin)
  if (origin !== undefined) return origin
  const reason = 'The port is 0: the port of the running sidecar is unknown.'
  const hint = 'Set a fixed port, such as [::]:9464.'
  throw new ConfigError([{ path: 'listen.admin', reason, hint }])
}
