/** The `doctor` command's checks: everything the sidecar needs, seen from inside its container. */

import { examineCertificates } from './certificates.ts'
import { examineCluster } from './cluster.ts'
import { examineFiles } from './files.ts'
import type { DoctorContext, Finding } from './finding.ts'
import { examineExposure } from './gateway-exposure.ts'
import { examineRefusals } from './refusals.ts'
import { examineGatewayWay } from './gateway-way.ts'
import { examineGateway, examineSidecar } from './neighbors.ts'
import { examineHosting } from './session-hosting.ts'
import { examineAddresses } from './own-addresses.ts'
import { examineSettings } from './settings.ts'

/** Runs all checks at once and resolves with their findings, always in the same order. */
export async function examine(context: DoctorContext): Promise<readonly Finding[]> {
  const pending = [
    examineCluster,
    examineGateway,
    examineExposure,
    examineGatewayWay,
    examineSidecar,
    examineAddresses,
    examineHosting,
    examineRefusals,
  ].map((check) => check(context))
  return [
    ...examineSettings(context),
    ...examineFiles(context),
    ...examineCertificates(context),
    ...(await Promise.all(pending)).flat(),
  ]
}
