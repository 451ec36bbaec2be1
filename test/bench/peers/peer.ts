/** What a proxy has to be to take part: started on demand, reached at an address, known by its processes. */

import type { Cluster, TlsFiles } from '../cluster.ts'
import type { SectionName } from '../options.ts'

export type Runtime = {
  readonly cluster: Cluster
  /** Where the gateway's stand-in listens, as host:port. */
  readonly upstream: string
  /** For configuration and logs of this one start. */
  readonly directory: string
  /** Set, the worker port speaks TLS. */
  readonly tls: TlsFiles | undefined
}

export type RunningPeer = {
  /** Where workers connect, as host:port. */
  readonly address: string
  readonly pids: () => readonly number[]
  readonly stop: () => Promise<void>
}

export type Peer = {
  readonly name: string
  /** Version and what matters of the configuration. */
  readonly about: string
  /** The sections in which it is measured. Default: all. */
  readonly sections?: readonly SectionName[]
  /** It lets everyone in, so that a token costs it nothing and a bad one is not refused. */
  readonly asksNobody?: boolean
  readonly start: (runtime: Runtime) => Promise<RunningPeer>
  /** The same with its default limits, where a measurement would show nothing but a limit. */
  readonly asShipped?: Pick<Peer, 'start'>
}

/** A peer that cannot take part here, and why. */
export type Absent = { readonly name: string; readonly absent: string }
