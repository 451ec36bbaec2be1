/** The states of a certificate that keep workers out. */

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createAuthority } from '../kit/authority.ts'
import type { SiteCase } from './site.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

type Issued = {
  readonly notBeforeMs?: number
  readonly notAfterMs?: number
  readonly hosts?: readonly string[]
  readonly usage?: 'server' | 'client'
}

/** Writes a certificate with these dates, as seen from now. */
const issue = async (
  directory: string,
  { notBeforeMs = -DAY_MS, notAfterMs = 90 * DAY_MS, hosts = ['127.0.0.1'], usage }: Issued,
) => {
  const authority = await createAuthority()
  const { cert, key } = await authority.issue({
    commonName: 'sidecar',
    hosts,
    ...(usage === undefined ? {} : { usage }),
    notBefore: new Date(Date.now() + notBeforeMs),
    notAfter: new Date(Date.now() + notAfterMs),
  })
  const [certFile, keyFile] = [join(directory, 'tls.crt'), join(directory, 'tls.key')]
  await writeFile(certFile, cert)
  await writeFile(keyFile, key)
  return [`listen.tls={certFile: ${certFile}, keyFile: ${keyFile}, serverNames: [127.0.0.1]}`]
}

const tlsCase = (alert: string, state: string, issued: Issued): SiteCase => ({
  alerts: [alert],
  state,
  site: { set: (directory) => issue(directory, issued) },
  provoke: () => {},
  async relieve(site) {
    await issue(site.directory, {})
    site.signal('SIGHUP')
  },
})

export const TLS_CASES: readonly SiteCase[] = [
  tlsCase('OpenClawCertificateExpired', 'the certificate has expired', { notAfterMs: -HOUR_MS }),
  tlsCase('OpenClawCertificateNotYetValid', 'the certificate is from the future', {
    notBeforeMs: HOUR_MS,
    notAfterMs: DAY_MS,
  }),
  tlsCase('OpenClawCertificateExpiring', 'the certificate ends within the scaled week', {
    notAfterMs: HOUR_MS,
  }),
  tlsCase('OpenClawCertificateUnfit', 'the certificate is for another name, and for clients', {
    hosts: ['elsewhere.example'],
    usage: 'client',
  }),
]
