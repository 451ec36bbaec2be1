/** Watches the dates of the worker port's certificates: each change is logged once. */

import {
  judgeAuthorities,
  judgeServerCertificate,
  readCertificates,
  formatTime,
  type Certificates,
  type CertificateState,
} from '../lib/certificates.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import type { TlsFiles, TlsMaterial } from './tls.ts'

export type CertificateWatchOptions = {
  readonly files: TlsFiles | undefined
  readonly clock: Clock
  readonly log: Log
}

/** Labels of the metrics. */
export type CertificateFile = 'certificate' | 'clientCa'

type Used = { readonly own: Certificates; readonly authorities: Certificates }

/** How often the dates are compared with the clock, in milliseconds: a clock may also be set. */
const LOOK_MS = 60_000

/**
 * A certificate that is unfit stays in use: a client can pin it, and a wrong clock must not close the
 * port.
 */
export class CertificateWatch {
  readonly #options: CertificateWatchOptions
  readonly #logged = new Map<CertificateFile, string>()
  /** What `use` was given, parsed; `undefined` without TLS. */
  #used: Used | undefined
  #cancelLook = () => {}

  constructor(options: CertificateWatchOptions) {
    this.#options = options
  }

  /** From now on it watches these certificates; `undefined` without TLS. */
  use(material: TlsMaterial | undefined): void {
    this.#used = material && {
      own: readCertificates(material.cert) ?? [],
      authorities: readCertificates(material.ca ?? '') ?? [],
    }
    this.#look()
  }

  stop(): void {
    this.#cancelLook()
    this.#used = undefined
  }

  /** The certificates in use, as of now. */
  *states(): Iterable<readonly [file: CertificateFile, state: CertificateState]> {
    if (this.#used === undefined) return
    const nowMs = this.#options.clock.now()
    const names = this.#options.files?.serverNames ?? []
    const own = judgeServerCertificate(this.#used.own, names, nowMs)
    if (own !== undefined) yield ['certificate', own]
    const authorities = judgeAuthorities(this.#used.authorities, nowMs)
    if (authorities !== undefined) yield ['clientCa', authorities]
  }

  #look(): void {
    this.#cancelLook()
    if (this.#used === undefined) return
    for (const [file, state] of this.states()) this.#logOnce(file, state)
    this.#cancelLook = this.#options.clock.after(LOOK_MS, () => this.#look())
  }

  #logOnce(name: CertificateFile, { notBefore, notAfter, faults, isEndingSoon }: CertificateState) {
    const said = JSON.stringify([notBefore, notAfter, faults, isEndingSoon])
    if (this.#logged.get(name) === said) return
    this.#logged.set(name, said)
    const { files, log } = this.#options
    const file = name === 'certificate' ? files?.certFile : files?.clientCaFile
    const fields = { file, notBefore: formatTime(notBefore), notAfter: formatTime(notAfter) }
    for (const { reason, hint } of faults) {
      log.error({ ...fields, reason, hint }, `${WHAT[name]} is not good: workers cannot connect`)
    }
    if (faults.length > 0) return
    if (isEndingSoon) log.warn(fields, `${WHAT[name]} expires soon and was not renewed`)
    else log.info(fields, `${WHAT[name]} is valid`)
  }
}

const WHAT = {
  certificate: 'the certificate of the worker port',
  clientCa: 'the CA of client certificates',
} as const satisfies Record<CertificateFile, string>
