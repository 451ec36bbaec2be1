/** Whether the gateway takes the sidecar's connections: a worker's upgrade, and the operator's. */

import { readChallenge } from '../dialect/openclaw/frames.ts'
import type { GatewayAuth } from '../dialect/openclaw/gateway-connect.ts'
import { GatewayMessages } from '../dialect/openclaw/gateway-messages.ts'
import { GatewaySecret } from '../dialect/openclaw/gateway-secret.ts'
import { openOperatorSocket } from '../dialect/openclaw/operator-socket.ts'
import { checkGateway } from '../edge/gateway-check.ts'
import { isOfAll } from '../edge/worker-way.ts'
import { GatewayRefused } from '../gateway-refusal.ts'
import { withDeadline } from '../lib/deadline.ts'
import { messageOf } from '../lib/errors.ts'
import type { GatewayConnection } from '../tunnel/dial.ts'
import { checkUpgrade } from '../tunnel/upgrade-check.ts'
import { closeFrame } from '../websocket/frames.ts'
import { fail, ok, warn, type DoctorContext, type Finding } from './finding.ts'

const UPGRADE = 'gateway-upgrade'
const OPERATOR = 'gateway-operator'
const TIMEOUT_MS = 5000
const GREETING_MS = 1000
const GREETING_BYTES_MAX = 65_536
const NO_CHALLENGE = new GatewayRefused('no_challenge', '')
const READ_LOG = "Read the gateway's log."

/** Finds nothing where nobody listens: another check says so. */
export async function examineGatewayWay(context: DoctorContext): Promise<readonly Finding[]> {
  const { config, clock } = context
  const url = new URL(config.gateway.url)
  if ((await checkGateway({ url, clock })) !== undefined) return []
  const upgrade = await examineUpgrade(context, url)
  // Another program would not answer an operator.
  const isOther = upgrade.what === NO_CHALLENGE.what
  return config.gateway.protocol === 'stream' || isOther
    ? [upgrade]
    : [upgrade, ...(await examineOperator(context, url))]
}

/** One connection with a worker's forwarded headers, and without an identity. */
async function examineUpgrade({ config, clock }: DoctorContext, url: URL): Promise<Finding> {
  const isStream = config.gateway.protocol === 'stream'
  let dialed: GatewayConnection
  try {
    dialed = await checkUpgrade({ url, timeoutMs: TIMEOUT_MS, clock })
  } catch (error) {
    if (!(error instanceof GatewayRefused)) return fail(UPGRADE, messageOf(error), READ_LOG)
    if (!isStream || isOfAll(error.refusal)) return fail(UPGRADE, error.what, error.remedy)
    return ok(UPGRADE, `${error.what}: a connection without an identity is refused`)
  }
  const isOpenClaw = await sendsChallenge(dialed, { clock }).finally(() => dialed.socket.destroy())
  if (isStream && isOpenClaw) {
    const what = 'the gateway speaks the protocol of OpenClaw, and gateway.protocol is stream'
    return warn(UPGRADE, what, 'Set it to openclaw, unless the workers are not nodes of OpenClaw.')
  }
  if (isStream || isOpenClaw) return ok(UPGRADE, 'the gateway upgrades a connection of a worker')
  return fail(UPGRADE, NO_CHALLENGE.what, NO_CHALLENGE.remedy)
}

async function sendsChallenge(
  dialed: GatewayConnection,
  { clock }: Pick<DoctorContext, 'clock'>,
): Promise<boolean> {
  const messages = new GatewayMessages(dialed, GREETING_BYTES_MAX)
  // What a server says before its answer to this is its greeting: nobody has to wait for silence.
  dialed.socket.write(closeFrame({ code: 1000, reason: '', masked: true }))
  try {
    const first = await withDeadline(clock, GREETING_MS, () => messages.next())
    return readChallenge(first) !== undefined
  } catch {
    return false
  }
}

/** Finds nothing where the secret cannot be read: another check says so. */
async function examineOperator(
  { config, readFile, clock }: DoctorContext,
  url: URL,
): Promise<readonly Finding[]> {
  let auth: GatewayAuth
  try {
    auth = new GatewaySecret({ ...config.gateway.auth, readFile }).asOperator()
  } catch {
    return []
  }
  const { promise, resolve } = Promise.withResolvers<Finding>()
  const socket = openOperatorSocket({
    url,
    auth,
    clock,
    version: 'doctor',
    messageBytesMax: config.limits.messageBytes,
    onHello: () =>
      resolve(ok(OPERATOR, 'the gateway accepts the secret of gateway.auth.secretFile')),
    onMessage() {},
    onDown(error) {
      const isRefused = error instanceof GatewayRefused
      const remedy = isRefused ? error.remedy : READ_LOG
      resolve(fail(OPERATOR, isRefused ? error.what : messageOf(error), remedy))
    },
  })
  const finding = await promise
  socket.destroy()
  return [finding]
}
