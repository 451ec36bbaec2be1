/** Metrics of the worker port's certificates, read at each scrape. */

import { Gauge, type Registry } from 'prom-client'
import type { CertificateState } from '../lib/certificates.ts'

export type CertificatesSeen = Iterable<readonly [file: string, state: CertificateState]>

/** Series exist only for the files that are configured. */
export function readCertificates(source: () => CertificatesSeen, registers: Registry[]): void {
  const gauge = (
    name: string,
    help: string,
    read: (state: CertificateState) => number | undefined,
  ) =>
    new Gauge({
      name: `openclaw_k8s_certificate_${name}`,
      help: `${help}. Absent without TLS.`,
      labelNames: ['file'],
      registers,
      collect() {
        this.reset()
        for (const [file, state] of source()) {
          const value = read(state)
          if (value !== undefined) this.set({ file }, value)
        }
      },
    })
  const byFile = "by file: certificate (the worker port's chain), clientCa"
  gauge(
    'expiry_timestamp_seconds',
    `When the first certificate of the chain expires, or the last of the CAs, ${byFile}`,
    ({ notAfter }) => notAfter / 1000,
  )
  gauge(
    'not_before_timestamp_seconds',
    `From when on the file is valid, ${byFile}`,
    ({ notBefore }) => notBefore / 1000,
  )
  gauge(
    'fit',
    '1 if the certificate of the worker port is for servers and for listen.tls.serverNames, otherwise 0, whatever its dates; the label file is certificate',
    ({ isFit }) => (isFit === undefined ? undefined : Number(isFit)),
  )
}
