/** Charges failed attempts to their address, or to the pod once the signature is verified. */

import type { Socket } from 'node:net'
import type { Caller, PodBinding } from '../authz/pod-binding.ts'
import type { Clock } from '../lib/clock.ts'
import { isCharged, type Code } from '../denial.ts'
import type { Claims } from '../identity.ts'
import type { Recorder, AuthAttempt } from '../observe/recorder.ts'
import type { TokenBuckets } from '../lib/token-buckets.ts'
import { normalizeAddress } from '../lib/address.ts'

export type AttemptsOptions = {
  /** Failed attempts that an address may make before it has to wait. */
  readonly perAddress: TokenBuckets
  /** The same for a pod whose token is signed. */
  readonly perPod: TokenBuckets
  /** Short streams that a pod may have before it has to wait. */
  readonly shortStreams: TokenBuckets
  readonly binding: Pick<PodBinding, 'check'>
  readonly recorder: Pick<Recorder, 'refused'>
  readonly clock: Clock
  /** The key an address counts under. */
  readonly groupOf: (address: string) => string
}

/** One attempt to get in; `address` is empty if the peer left before we looked. */
export type Connection = {
  readonly address: string
  readonly attempt: AuthAttempt
  readonly arrivedAt: number
}

/** Codes from before the line that mean a credential was presented. */
const CREDENTIAL_CODES: readonly Code[] = [
  'credential_in_query',
  'credential_repeated',
  'credential_malformed',
  'credential_too_large',
]
/** Codes that say something of a pod. */
const POD_CODES: ReadonlySet<Code> = new Set([
  'pod_not_found',
  'pod_deleted',
  'pod_terminating',
  'pod_not_running',
  'pod_mismatch',
  'pod_unconfirmed',
  'host_network_not_allowed',
  'source_address_mismatch',
  'source_address_unconfirmed',
  'service_account_deleted',
])
/** A stream that its worker ends sooner than this is short, in milliseconds. */
const SHORT_STREAM_MS = 1000
/** Endings caused by the worker; `completed` is a close by either peer. */
const WORKER_ENDS: ReadonlySet<Code | 'completed'> = new Set([
  'completed',
  'worker_gone',
  'displaced',
  'framing_violation',
  'message_too_big',
  'empty_fragments_exceeded',
])

/**
 * An attempt is charged when it ends, unless it was admitted or its failure was not the caller's
 * fault: a burst of reconnects costs nothing. `PendingSockets` bounds how many attempts of an
 * address run at once. Those that started while the budget lasted are charged in full, into debt.
 */
export class Attempts {
  readonly #options: AttemptsOptions

  constructor(options: AttemptsOptions) {
    this.#options = options
  }

  mayStart(address: string): boolean {
    const { groupOf, perAddress } = this.#options
    return perAddress.has(groupOf(address))
  }

  /** Whether the pod of a signed token may continue. */
  mayContinue(caller: Caller): boolean {
    const { perPod, shortStreams } = this.#options
    const { podUid } = caller.claims
    const isWithinLimits = perPod.has(podUid) && shortStreams.has(podUid)
    return isWithinLimits || !this.#isOfPod(caller)
  }

  /** Charges and records an attempt that ended with `code`. Returns the code that the caller is told. */
  failed(code: Code, { address, attempt, arrivedAt }: Connection): Code {
    const isConcealed = isOfUnprovenPod(code, attempt)
    const told = isConcealed ? 'pod_unconfirmed' : code
    // There is no address to attribute it to.
    if (address === '') return told
    const { clock, recorder } = this.#options
    // The charge must not tell either what the code does not.
    if (isCharged(code) || isConcealed) this.#charge(address, attempt)
    if (CREDENTIAL_CODES.includes(code)) attempt.hasCredential = true
    recorder.refused({ code, address, attempt, durationMs: clock.monotonic() - arrivedAt })
    return told
  }

  /**
   * An admission is free, but each writes two audit lines and dials the gateway: a pod that only
   * comes and goes is charged for it.
   */
  ended(code: Code | 'completed', durationMs: number, { podUid }: Pick<Claims, 'podUid'>): void {
    if (durationMs >= SHORT_STREAM_MS || !WORKER_ENDS.has(code)) return
    this.#options.shortStreams.charge(podUid)
  }

  /**
   * Pods may share an address, so a pod pays for itself. A token used from elsewhere is charged to
   * that address: a thief must not be able to lock the token's pod out.
   */
  #charge(address: string, { signed }: Readonly<AuthAttempt>): void {
    const { groupOf, perAddress, perPod } = this.#options
    if (signed !== undefined && this.#isOfPod({ claims: signed, address })) {
      perPod.charge(signed.podUid)
    } else perAddress.charge(groupOf(address))
  }

  #isOfPod(caller: Caller): boolean {
    return this.#options.binding.check({ ...caller, mayFinish: true }).ok
  }
}

/**
 * Whether claims that nobody has proven were refused because of the pod that they name: a stranger
 * must not learn from the answer whether it exists. Where the cluster could not be asked, a fault says
 * nothing of the pod, unless it says that the pod is elsewhere.
 */
function isOfUnprovenPod(code: Code, { signed, fault }: Readonly<AuthAttempt>): boolean {
  const isSilent = fault !== undefined && code !== 'source_address_unconfirmed'
  return signed === undefined && !isSilent && POD_CODES.has(code)
}

export const connectionOf = (socket: Socket, clock: Clock): Connection => ({
  address: normalizeAddress(socket.remoteAddress) ?? '',
  attempt: {},
  arrivedAt: clock.monotonic(),
})
