/** Whether the certificates of a configuration are fit for their use, now and for a while. */

import {
  formatTime,
  judgeAuthorities,
  judgeServerCertificate,
  readCertificates,
  type Certificates,
  type CertificateState,
} from '../lib/certificates.ts'
import type { Problem } from './config-error.ts'
import type { ReadFile } from './files.ts'
import type { Config } from './schema.ts'

export type JudgedFile = CertificateState & { readonly path: string; readonly file: string }

/** Every certificate file that can be read. What cannot be read is the matter of `checkFiles`. */
export function judgeCertificates(
  { listen, kubernetes }: Config,
  readFile: ReadFile,
  nowMs: number,
): readonly JudgedFile[] {
  const { certFile, clientCaFile, serverNames } = listen.tls ?? {}
  const judgeCa = (certificates: Certificates) => judgeAuthorities(certificates, nowMs)
  const judge = (
    path: string,
    file: string | undefined,
    judgeFile: (certificates: Certificates) => CertificateState | undefined,
  ): readonly JudgedFile[] => {
    const state = file === undefined ? undefined : judgeFile(readOrNothing(file, readFile))
    return file === undefined || state === undefined ? [] : [{ path, file, ...state }]
  }
  return [
    ...judge('listen.tls.certFile', certFile, (certificates) =>
      judgeServerCertificate(certificates, serverNames ?? [], nowMs),
    ),
    ...judge('listen.tls.clientCaFile', clientCaFile, judgeCa),
    ...judge('kubernetes.caFile', kubernetes.caFile, judgeCa),
  ]
}

export const problemsOf = (judged: readonly JudgedFile[]): readonly Problem[] =>
  judged.flatMap(({ path, file, faults }) =>
    faults.map((fault) => ({ path, where: file, ...fault })),
  )

/** One sentence for a certificate that should have been renewed by now. */
export const describeEnding = ({ path, file, notAfter }: JudgedFile): string =>
  `${path} (${file}): The certificate expires soon, at ${formatTime(notAfter)}.`

function readOrNothing(file: string, readFile: ReadFile): Certificates {
  try {
    return readCertificates(readFile(file)) ?? []
  } catch {
    return []
  }
}
