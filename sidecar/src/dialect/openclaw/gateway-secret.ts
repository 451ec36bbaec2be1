/** The gateway's own secret: when the sidecar presents it, and how. */

import { Fault } from '../../fault.ts'
import type { GatewayAuth } from './gateway-connect.ts'

export type GatewaySecretOptions = {
  readonly mode: 'token' | 'password' | 'trusted-proxy'
  readonly secretFile: string
  readonly readFile: (path: string) => string
}

/** The file is read each time, since the secret may be rotated. */
export class GatewaySecret {
  readonly #options: GatewaySecretOptions

  constructor(options: GatewaySecretOptions) {
    this.#options = options
  }

  /** For the operator's connection. Throws a `Fault` without a secret. */
  asOperator(): GatewayAuth {
    const secret = this.#read()
    return this.#options.mode === 'token' ? { token: secret } : { password: secret }
  }

  /**
   * For a worker's connection. Behind a trusted proxy only the gateway's owner presents the secret:
   * a worker's connection is identified by its headers.
   */
  asWorker(): GatewayAuth {
    return this.#options.mode === 'trusted-proxy' ? {} : this.asOperator()
  }

  #read(): string {
    const { readFile, secretFile } = this.#options
    let secret: string
    try {
      secret = readFile(secretFile).trim()
    } catch (cause) {
      throw new Fault('operator_unavailable', "the gateway's secret cannot be read", { cause })
    }
    if (secret === '') throw new Fault('operator_unavailable', "the gateway's secret is empty")
    return secret
  }
}
