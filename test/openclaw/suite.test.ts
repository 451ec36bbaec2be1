/** The suite in its order: later parts need what earlier ones have left running. */

import { after, describe } from 'node:test'
import { testAdmission } from './admission.ts'
import { testUnless } from './bounded-test.ts'
import { testConnect } from './connect.ts'
import { testForwarding } from './forwarding.ts'
import { testHosting } from './hosting.ts'
import { testMisconfigured } from './misconfigured.ts'
import { testRecovery } from './recovery.ts'
import { testRefusals } from './refusals.ts'
import { testSessions } from './sessions.ts'
import { startProductRig } from './product-rig.ts'
import { whyNoMode } from './lacks.ts'
import { readRun, titleOfRun } from './suite-plan.ts'

/** Several times what the gateway and all its nodes take to end, one after another. */
const STOP_LIMIT_MS = 2 * 60_000

const run = readRun()

describe(titleOfRun(run), async () => {
  const lack = whyNoMode(run)
  if (lack !== undefined)
    return testUnless(lack, 'the sidecar is an operator of the gateway', () => {})
  const rig = await startProductRig(run)
  after(() => rig.stop(), { timeout: STOP_LIMIT_MS })
  testAdmission(rig)
  testRefusals(rig)
  testSessions(rig)
  testRecovery(rig)
  testConnect(rig)
  testForwarding(rig)
  testMisconfigured(rig)
  // Last: a gateway that has hosted sessions takes its time to stop, and their wire is another one.
  if (process.env['SKIP_HOSTING'] === undefined) testHosting(rig)
})
