/** Upgrades and HTTP against a live worker port: it stays up, admits nobody without proof, keeps nothing. */

import { ok, strictEqual } from 'node:assert/strict'
import { CODES } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { Silent, playCourse } from './connection.ts'
import { bytesOf, group, isProven, type Hostile } from './requests.ts'
import { POD_ADDRESS, openSite, type Site } from './site.ts'
import { promiseOf, type Target } from './target.ts'
import { askWs } from './ws-receiver.ts'

const SILENT_MAX = 16
const STATUSES = new Set<number>([101, ...Object.values(CODES).map(({ status }) => status)])
const HEAD_END = '\r\n\r\n'

/** Whatever came back has to be a whole answer of ours, and after a 101 lawful frames. */
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
  // A promise of its own looks at close codes.
  if (objection !== 'WS_ERR_INVALID_CLOSE_CODE') strictEqual(objection, undefined)
}

export const upgradeTarget: Target = {
  name: 'upgrade',
  async open({ asProcess }) {
    const start = async () => {
      const [plain, tls] = await Promise.all([
        openSite({ asProcess }),
        openSite({ asProcess, isTls: true }),
      ])
      return { plain, tls, proven: 0 }
    }
    const stop = async () => void (await Promise.all([sites.plain.stop(), sites.tls.stop()]))
    let sites = await start()
    const silent = new Silent(SILENT_MAX)
    const play = async (each: Hostile, site: Site): Promise<void> => {
      if (isProven(each)) sites.proven += 1
      const peer = { port: site.port, ca: site.ca, localAddress: POD_ADDRESS }
      checkAnswer(await playCourse(peer, bytesOf(each, site.token), each.course, silent))
    }
    const revive = async (): Promise<void> => {
      if (sites.plain.whyEnded() === undefined && sites.tls.whyEnded() === undefined) return
      await stop()
      sites = await start()
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
            await revive()
            await Promise.all(each.map((one) => play(one, one.isTls ? sites.tls : sites.plain)))
            for (const site of [sites.plain, sites.tls]) {
              await site.metrics().catch(() => undefined)
              site.assertAlive()
            }
          },
        ),
      ],
      async settle() {
        silent.end()
        await Promise.all([sites.plain.assertUnchanged(), sites.tls.assertUnchanged()])
        const letIn = sites.plain.foreignHandshakes() + sites.tls.foreignHandshakes()
        ok(letIn <= sites.proven, `${letIn} workers of ${sites.proven} with a token got in`)
      },
      close: stop,
    }
  },
}
