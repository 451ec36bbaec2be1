/** The connections to the API server: agents that trust only the cluster's CA. */

import { Agent } from 'undici'
import type { Code } from '../denial.ts'
import { Fault } from '../fault.ts'
import { systemNetwork, type Network } from '../lib/network.ts'
import type { OwnCredentials } from './own-credentials.ts'

export type ClusterAgentOptions = {
  readonly credentials: Pick<OwnCredentials, 'ca'>
  /** The machine's own unless said otherwise. */
  readonly network?: Network | undefined
  /** The code of the fault when there is no CA. */
  readonly faultCode: Code
  /**
   * As undici takes them. HTTP/1.1 only: an early 401 resets an HTTP/2 stream and loses the body.
   */
  readonly agent: Agent.Options
  readonly connect?: { readonly keepAlive: true; readonly keepAliveInitialDelay: number }
}

/** One agent, replaced when the CA rotates: connections under the old CA finish and close. */
export class ClusterAgent {
  readonly #options: ClusterAgentOptions
  #current: { readonly ca: string; readonly agent: Agent } | undefined

  constructor(options: ClusterAgentOptions) {
    this.#options = options
  }

  /**
   * Throws a `Fault` while there is no CA: without one, Node would trust every public authority.
   */
  get(): Agent {
    const {
      credentials,
      faultCode,
      agent: options,
      connect,
      network = systemNetwork,
    } = this.#options
    const { ca } = credentials
    if (this.#current?.ca === ca) return this.#current.agent
    if (ca === '') throw new Fault(faultCode, 'The CA file of the API server is missing or empty.')
    this.#current?.agent.close().catch(() => {})
    const agent = new Agent({
      ...options,
      // Whatever NODE_TLS_REJECT_UNAUTHORIZED says.
      connect: network.buildConnector({ ...connect, ca, allowH2: false, rejectUnauthorized: true }),
      allowH2: false,
      // Only the callers' deadlines apply: these timeouts would start counting at another moment.
      headersTimeout: 0,
      bodyTimeout: 0,
    })
    this.#current = { ca, agent }
    return agent
  }

  async close(): Promise<void> {
    await this.#current?.agent.destroy()
  }
}
