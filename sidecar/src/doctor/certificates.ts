/** Whether the certificates are fit for their use, now and for a while. */

import { describeEnding, judgeCertificates } from '../config/certificates.ts'
import { formatTime } from '../lib/certificates.ts'
import { fail, ok, warn, type DoctorContext, type Finding } from './finding.ts'

const NAME = 'certificates'

/** Files that cannot be read are another check's finding. */
export function examineCertificates({
  config,
  readFile,
  clock,
}: DoctorContext): readonly Finding[] {
  return judgeCertificates(config, readFile, clock.now()).flatMap((judged): readonly Finding[] => {
    const { path, file, faults, isEndingSoon, notAfter } = judged
    if (faults.length > 0) {
      return faults.map(({ reason, hint }) => fail(NAME, `${path} (${file}): ${reason}`, hint))
    }
    if (isEndingSoon) {
      const remedy = 'Renew it, and check what should have renewed it by now.'
      return [warn(NAME, describeEnding(judged), remedy)]
    }
    // A good CA of the API server needs no line: the check of the API server uses it.
    if (path === 'kubernetes.caFile') return []
    return [ok(NAME, `${path}: valid until ${formatTime(notAfter)}`)]
  })
}
