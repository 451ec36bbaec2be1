/** The two ends of every measurement: an echo server for a gateway, and a client that drives workers. */

import { startChild } from './child.ts'
import { buildGo } from './go-programs.ts'

export type Target = {
  readonly address: string
  /** The CA of the port's certificate makes it a TLS connection. */
  readonly caFile?: string
  /** A file of lines `SOURCE-ADDRESS TOKEN`, used in turn. */
  readonly credentials: string
}

export type Command =
  | ({
      readonly do: 'open'
      readonly group: string
      readonly connections: number
      /** Handshakes under way at a time. Default 64. */
      readonly atOnce?: number
    } & Target)
  | { readonly do: 'close'; readonly group: string }
  | {
      readonly do: 'echo'
      readonly group: string
      readonly payloadBytes: number
      readonly ms: number
    }
  | {
      readonly do: 'stream'
      readonly group: string
      readonly direction: 'up' | 'down'
      readonly payloadBytes: number
      readonly ms: number
    }
  | ({
      readonly do: 'handshakes'
      /** Number of the first credential to use; they are taken modulo the length of the file. */
      readonly from: number
      readonly count: number
      readonly concurrency: number
      /** Resume the TLS sessions of earlier handshakes. Default: no. */
      readonly resumesTls?: boolean
    } & Target)

export type Done = {
  readonly messages: number
  readonly bytes: number
  readonly seconds: number
  readonly p50Us: number
  readonly p99Us: number
  /** How often each status answered a handshake. */
  readonly statuses?: Readonly<Record<string, number>>
  /** How many handshakes resumed a TLS session. */
  readonly resumed?: number
}

export type Load = Awaited<ReturnType<typeof startLoad>>

export const startLoad = async () => {
  const program = buildGo('load')
  const server = startChild([program, 'echo-server', '0.0.0.0:0'])
  const client = startChild([program, 'client'])
  const echoPort = Number((await server.nextLine()).split(':').at(-1))
  return {
    /** The echo server listens on all addresses of loopback. */
    echoPort,
    /** Carries out one command; commands must not overlap. */
    run: async (command: Command): Promise<Done> => {
      client.writeLine(JSON.stringify(command))
      const { error, ...done } = JSON.parse(await client.nextLine()) as Done & { error?: string }
      if (error !== undefined) throw new Error(`${command.do}: ${error}`)
      return done
    },
    stop: async () => {
      await client.stop()
      await server.stop()
    },
  }
}
