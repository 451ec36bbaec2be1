/** X.509 certificates in PEM: how long they are valid, and what makes them unfit for their use. */

import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'

/** What is wrong, and how to fix it, in whole sentences. */
type CertificateFault = { readonly reason: string; readonly hint: string }

/** What a file's certificates say. Times are milliseconds since the epoch. */
export type CertificateState = {
  readonly notBefore: number
  readonly notAfter: number
  readonly faults: readonly CertificateFault[]
  /** Whether a server's certificate is for servers and for the names, whatever its dates. */
  readonly isFit?: boolean
  /** Less than a fifth of the lifetime is left, at most 14 days: it should have been renewed. */
  readonly isEndingSoon: boolean
}

const CERTIFICATE_PATTERN = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g
/** Extended key usages (RFC 5280 §4.2.1.12): serverAuth, and any. */
const FOR_SERVERS = ['1.3.6.1.5.5.7.3.1', '2.5.29.37.0']
/** cert-manager renews with a third of the lifetime left. */
const ENDING_SHARE = 0.2
const ENDING_MS_MAX = 14 * 86_400_000
const SHOWN_NAMES_LENGTH_MAX = 200
const RENEW = 'Renew the certificate; the sidecar reads the file again without a restart.'

export type Certificates = readonly X509Certificate[]

/** All certificates of a PEM file; `undefined` if there is none, or one that cannot be read. */
export function readCertificates(pem: string): Certificates | undefined {
  const blocks = pem.match(CERTIFICATE_PATTERN)
  if (blocks === null) return undefined
  try {
    return blocks.map((block) => new X509Certificate(block))
  } catch {
    return undefined
  }
}

/**
 * The certificate that a server shows, with its intermediates: `names` are those that clients
 * connect to. `undefined` if there are no certificates.
 */
export function judgeServerCertificate(
  certificates: Certificates,
  names: readonly string[],
  nowMs: number,
): CertificateState | undefined {
  const chain = chainOf(certificates)
  const [leaf] = chain
  if (leaf === undefined) return undefined
  const dateFaults = chain.flatMap((certificate) => findDateFaults(certificate, nowMs))
  const useFaults = [...findUsageFaults(leaf), ...findNameFaults(leaf, names)]
  const state = stateOf(chain, nowMs, [...dateFaults, ...useFaults])
  return { ...state, isFit: useFaults.length === 0 }
}

/**
 * The CAs that a peer's certificate may come from. They last as long as the last of them: one that
 * ends before another is the normal end of a rotation. `undefined` if there are no certificates.
 */
export function judgeAuthorities(
  authorities: Certificates,
  nowMs: number,
): CertificateState | undefined {
  const byEnd = authorities.toSorted((one, other) => endOf(one) - endOf(other))
  const current = byEnd.filter((certificate) => isValidAt(certificate, nowMs))
  const decisive = current.at(-1) ?? byEnd.at(-1)
  if (decisive === undefined) return undefined
  return stateOf([decisive], nowMs, findDateFaults(decisive, nowMs))
}

export const isValidAt = (certificate: X509Certificate, nowMs: number): boolean =>
  startOf(certificate) <= nowMs && nowMs < endOf(certificate)

const startOf = ({ validFromDate }: X509Certificate): number => validFromDate.getTime()
/** Wall time, in milliseconds. */
export const endOf = ({ validToDate }: X509Certificate): number => validToDate.getTime()

/** The first certificate and its issuers in the file; clients bring the root themselves. */
function chainOf([leaf, ...others]: Certificates): Certificates {
  if (leaf === undefined) return []
  const chain = [leaf]
  let last = leaf
  for (const issuer of others) {
    const isRoot = issuer.subject === issuer.issuer
    if (isRoot || !last.checkIssued(issuer)) continue
    chain.push(issuer)
    last = issuer
  }
  return chain
}

function stateOf(
  certificates: Certificates,
  nowMs: number,
  faults: readonly CertificateFault[],
): CertificateState {
  const notBefore = Math.max(...certificates.map(startOf))
  const notAfter = Math.min(...certificates.map(endOf))
  const endingMs = Math.min((notAfter - notBefore) * ENDING_SHARE, ENDING_MS_MAX)
  const leftMs = notAfter - nowMs
  return { notBefore, notAfter, faults, isEndingSoon: leftMs > 0 && leftMs < endingMs }
}

function findDateFaults(certificate: X509Certificate, nowMs: number): readonly CertificateFault[] {
  const who = `The certificate of ${nameOf(certificate)}`
  if (nowMs >= endOf(certificate)) {
    return [{ reason: `${who} expired at ${formatTime(endOf(certificate))}.`, hint: RENEW }]
  }
  if (nowMs >= startOf(certificate)) return []
  const reason = `${who} is not valid before ${formatTime(startOf(certificate))}.`
  return [{ reason, hint: "Compare this machine's clock, or issue another certificate." }]
}

function findUsageFaults({ keyUsage }: X509Certificate): readonly CertificateFault[] {
  // Without the extension a certificate is for every use. Node's types miss that.
  const usages = keyUsage as readonly string[] | undefined
  if (usages === undefined || usages.some((usage) => FOR_SERVERS.includes(usage))) return []
  const reason = 'The certificate is not for servers: its extended key usage lacks serverAuth.'
  return [{ reason, hint: 'Issue it with the extended key usage serverAuth.' }]
}

function findNameFaults(
  certificate: X509Certificate,
  names: readonly string[],
): readonly CertificateFault[] {
  const isFor = (name: string) =>
    isIP(name) === 0 ? certificate.checkHost(name) : certificate.checkIP(name)
  const missing = names.filter((name) => isFor(name) === undefined)
  if (missing.length === 0) return []
  const own = (certificate.subjectAltName ?? 'no name').slice(0, SHOWN_NAMES_LENGTH_MAX)
  const reason = `The certificate is not for ${missing.join(', ')}; it has ${own}.`
  return [{ reason, hint: 'Issue it with these names, or correct listen.tls.serverNames.' }]
}

/** Its first line is the most specific one in the certificates that people make. */
const nameOf = ({ subject, subjectAltName, serialNumber }: X509Certificate): string =>
  ((subject as string | undefined) ?? subjectAltName ?? `serial number ${serialNumber}`)
    .replaceAll('\n', ', ')
    .slice(0, SHOWN_NAMES_LENGTH_MAX)

/** A time of a certificate in words, to the second. */
export const formatTime = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z')
