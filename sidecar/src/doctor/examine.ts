/** The examination: everything the sidecar needs, looked at from where it stands. */

import { examineCluster } from './cluster.ts'
import { examineFiles } from './files.ts'
import type { Finding, Patient } from './finding.ts'
import { examineGateway, examineSidecar } from './neighbours.ts'
import { examineSettings } from './settings.ts'

/** Looks at everything at once and resolves with what it found, in an order that stays the same. */
export async function examine(patient: Patient): Promise<readonly Finding[]> {
  const asked = [examineCluster, examineGateway, examineSidecar].map((ask) => ask(patient))
  return [
    ...examineSettings(patient),
    ...examineFiles(patient),
    ...(await Promise.all(asked)).flat(),
  ]
}
