/** The suite in its order: later parts need what earlier ones have left running. */

import { after, describe } from 'node:test'
import { testAdmission } from './admission.ts'
import { testForwarding } from './forwarding.ts'
import type { GatewayMode } from './gateway.ts'
import { testRecovery } from './recovery.ts'
import { testRefusals } from './refusals.ts'
import { testSessions } from './sessions.ts'
import { startProductRig } from './product-rig.ts'

const mode: GatewayMode =
  process.env['OPENCLAW_SUITE_MODE'] === 'trusted-proxy' ? 'trusted-proxy' : 'token'

describe(`OpenClaw in ${mode} mode`, async () => {
  const rig = await startProductRig(mode)
  after(() => rig.stop())
  testAdmission(rig)
  testRefusals(rig)
  testSessions(rig)
  testRecovery(rig)
  testForwarding(rig)
})
