/** A certificate authority made on the spot, for servers and clients that live as long as a test. */

import 'reflect-metadata'
import type { webcrypto } from 'node:crypto'
import { isIP } from 'node:net'
import * as x509 from '@peculiar/x509'

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const DAY_MS = 86_400_000
/** Clocks of two machines differ; a certificate that starts now is not valid yet on one of them. */
const BACKDATED_MS = 3_600_000
/** A CA is also valid at the time of a fake clock. */
const AUTHORITY_BACKDATED_MS = 3650 * DAY_MS

type KeyPair = { readonly cert: string; readonly key: string }

type CertificateRequest = {
  readonly commonName: string
  /** Names and addresses the certificate is for. */
  readonly hosts?: readonly string[]
  /** `client` makes a certificate no server may use, and the other way round. */
  readonly usage?: 'server' | 'client'
  readonly notBefore?: Date
  readonly notAfter?: Date
}

type Dates = Pick<CertificateRequest, 'notBefore' | 'notAfter'>

export type Authority = {
  /** The CA certificate in PEM. */
  readonly cert: string
  readonly issue: (request: CertificateRequest) => Promise<KeyPair>
  /** Makes an intermediate CA. */
  readonly subordinate: (commonName: string, dates?: Dates) => Promise<Authority>
}

export const createAuthority = async (
  commonName = 'kubernetes',
  dates: Dates = {},
): Promise<Authority> => {
  const keys = await generateKeys()
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${commonName}`,
    keys,
    ...(await authorityOptions(keys, dates)),
  })
  return authorityOf(root, keys)
}

const authorityOf = (
  ca: x509.X509Certificate,
  { privateKey: signingKey }: webcrypto.CryptoKeyPair,
): Authority => ({
  cert: ca.toString('pem'),
  issue: (request) => issue(ca, signingKey, request),
  async subordinate(commonName, dates = {}) {
    const keys = await generateKeys()
    const certificate = await x509.X509CertificateGenerator.create({
      subject: `CN=${commonName}`,
      issuer: ca.subject,
      publicKey: keys.publicKey,
      signingKey,
      ...(await authorityOptions(keys, dates)),
    })
    return authorityOf(certificate, keys)
  },
})

const authorityOptions = async (
  { publicKey }: webcrypto.CryptoKeyPair,
  { notBefore, notAfter }: Dates,
) => ({
  signingAlgorithm: ALGORITHM,
  notBefore: notBefore ?? new Date(Date.now() - AUTHORITY_BACKDATED_MS),
  notAfter: notAfter ?? new Date(Date.now() + 365 * DAY_MS),
  extensions: [
    new x509.BasicConstraintsExtension(true, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    await x509.SubjectKeyIdentifierExtension.create(publicKey),
  ],
})

const issue = async (
  root: x509.X509Certificate,
  signingKey: CryptoKey,
  request: CertificateRequest,
): Promise<KeyPair> => {
  const keys = await generateKeys()
  const names = (request.hosts ?? []).map((value) => ({
    type: isIP(value) === 0 ? ('dns' as const) : ('ip' as const),
    value,
  }))
  const usage =
    request.usage === 'client' ? x509.ExtendedKeyUsage.clientAuth : x509.ExtendedKeyUsage.serverAuth
  const certificate = await x509.X509CertificateGenerator.create({
    subject: `CN=${request.commonName}`,
    issuer: root.subject,
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: ALGORITHM,
    notBefore: request.notBefore ?? new Date(Date.now() - BACKDATED_MS),
    notAfter: request.notAfter ?? new Date(Date.now() + 30 * DAY_MS),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([usage]),
      await x509.AuthorityKeyIdentifierExtension.create(root.publicKey),
      ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names)]),
    ],
  })
  return { cert: certificate.toString('pem'), key: await exportKey(keys.privateKey) }
}

const generateKeys = async (): Promise<webcrypto.CryptoKeyPair> =>
  crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])

const exportKey = async (key: CryptoKey): Promise<string> => {
  const der = await crypto.subtle.exportKey('pkcs8', key)
  return x509.PemConverter.encode(der, 'PRIVATE KEY')
}
