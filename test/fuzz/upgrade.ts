/** Upgrades and HTTP against a live worker port: it stays up, admits nobody without proof, keeps nothing. */

import { ok, strictEqual } from 'node:assert/strict'
import { CODES } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { Silent, playCourse } from './connection.ts'
import { bytesOf, group, isProven, type Hostile } from './requests.ts'
import { POD_ADDRESS, holdFuzzRig, type FuzzRig } from './fuzz-rig.ts'
import { promiseOf, type Target } from './target.ts'
import { askWs } from './ws-receiver.ts'

const SILENT_MAX = 16
const STATUSES = new Set<number>([101, ...Object.values(CODES).map(({ status }) => status)])
const HEAD_END = '\r\n\r\n'

/** What came back must be a complete answer of ours, and lawful frames after a 101. */
const checkAnswer = (received: Buffer): void => {
  if (received.length === 0) return
  const end = received.indexOf(HEAD_END)
  const [, status] = /^HTTP\/1\.1 (\d{3}) /.exec(received.toString('latin1', 0, 20)) ?? []
  ok(STATUSES.has(Number(status)), `an answer of ${received.toString('latin1', 0, 40)}`)
  ok(end > 0, 'half an answer')
  if (status !== '101') return
  const { objection } = askWs(received.subarray(end + HEAD_END.length), {
    masked: false,
    isUtf8Checked: false,
  })
  // A separate promise checks close codes.
  if (objection !== 'WS_ERR_INVALID_CLOSE_CODE') strictEqual(objection, undefined)
}

export const upgradeTarget: Target = {
  name: 'upgrade',
  async open({ asProcess }) {
    const [plain, tls] = await Promise.all([
      holdFuzzRig({ asProcess }),
      holdFuzzRig({ asProcess, isTls: true }),
    ])
    const bothRigs = async () => Promise.all([plain.get(), tls.get()])
    const silent = new Silent(SILENT_MAX)
    let proven = 0
    const play = async (each: Hostile, rig: FuzzRig): Promise<void> => {
      if (isProven(each)) proven += 1
      const peer = { port: rig.port, ca: rig.ca, localAddress: POD_ADDRESS }
      checkAnswer(await playCourse(peer, bytesOf(each, rig.token), each.course, silent))
    }
    return {
      properties: [
        promiseOf(
          {
            promise: 'no connection ends the sidecar, gets in without proof or stays behind',
            runs: 40,
          },
          group,
          async (each) => {
            const [open, secret] = await bothRigs()
            await Promise.all(each.map((one) => play(one, one.isTls ? secret : open)))
            for (const rig of [open, secret]) {
              await rig.metrics().catch(() => undefined)
              rig.assertAlive()
            }
          },
        ),
      ],
      async settle() {
        silent.end()
        const rigs = await bothRigs()
        await Promise.all(rigs.map(async (rig) => rig.assertUnchanged()))
        const admitted = rigs.reduce((sum, rig) => sum + rig.foreignHandshakes(), 0)
        ok(admitted <= proven, `${admitted} workers of ${proven} with a token got in`)
      },
      close: async () => void (await Promise.all([plain.close(), tls.close()])),
    }
  },
}
