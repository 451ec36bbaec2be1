/** Mistakes that show in what is around the sidecar: the API server, the gateway, the network, the workers. */

import { networkInterfaces } from 'node:os'
import { listDialable } from '@openclaw-k8s/auth-sidecar/lib/own-addresses.ts'
import { createAuthority } from '../kit/authority.ts'
import { WORKERS } from '../kit/config-sources.ts'
import { SECRET, type Misconfiguration } from './site.ts'

const MINUTE_MS = 60_000
const OPENCLAW = { gateway: 'openclaw', protocol: 'openclaw' } as const
const MAY_CREATE = "Let the sidecar's ServiceAccount create tokenreviews"
const SYNCHRONIZE = "Synchronize the nodes' clocks"

export const NEIGHBOR_CASES: readonly Misconfiguration[] = [
  {
    number: 1,
    mistake: "the worker's token has another audience",
    async play(site) {
      await site.serve()
      await site.refuse('worker-a', '127.0.0.11', { audiences: ['gateway'] })
      const told =
        "pod openclaw/worker-a … The token has the wrong audience. … Project it with the gateway's audience."
      await site.run('doctor', 0, told)
      await site.run('status', 0, 'worker-a … audience_mismatch … audience')
    },
  },
  {
    number: 2,
    mistake: 'no right to create TokenReviews',
    async play(site) {
      site.api.setRbac({ tokenReviews: false })
      await site.run('doctor', 69, `[fail] rights: … cannot create tokenreviews … ${MAY_CREATE}`)
      await site.serve()
      await site.refuse('worker-a', '127.0.0.11')
      const what = "refuses the sidecar's TokenReviews"
      await site.run('doctor', 69, `[warn] sidecar: … ${what} … ${MAY_CREATE}`)
    },
  },
  {
    number: 3,
    mistake: 'no right to see pods',
    async play(site) {
      site.api.setRbac({ pods: false })
      const what = 'cannot get, list, watch pods in namespace openclaw'
      await site.run(
        'doctor',
        69,
        `[fail] rights: … ${what} … Bind a role there that can get, list`,
      )
    },
  },
  {
    number: 4,
    mistake: "the sidecar's secret is not the gateway's",
    site: OPENCLAW,
    async play(site) {
      await site.write('secret', 'another-secret')
      const told =
        "gateway.auth.secretFile … the gateway refuses this secret … Mount the gateway's own secret there"
      await site.run('doctor', 69, `[fail] gateway-operator: ${told}`)
      await site.watchLog(told)
    },
  },
  {
    number: 5,
    mistake: 'a secret that ends with a line break',
    site: OPENCLAW,
    async play(site) {
      for (const end of ['\n', '\r\n']) {
        await site.write('secret', SECRET + end)
        await site.run('check-config', 0, 'OK: 1 identity allowed')
        await site.watchLog('ready: workers can connect')
      }
    },
  },
  {
    number: 9,
    mistake: 'the clock is 5 minutes fast',
    async play(site) {
      await site.setApiAhead(-5 * MINUTE_MS)
      await site.run('doctor', 69, `[fail] clock: … tokens expire too early … ${SYNCHRONIZE}`)
    },
  },
  {
    number: 10,
    mistake: 'the clock is 5 minutes slow, or 90 seconds',
    async play(site) {
      for (const minutes of [5, 1.5]) {
        await site.setApiAhead(minutes * MINUTE_MS)
        await site.run('doctor', 69, `[fail] clock: … fresh tokens are refused … ${SYNCHRONIZE}`)
      }
    },
  },
  {
    number: 11,
    mistake: 'the CA is not that of the API server',
    async play(site) {
      await site.write('ca.crt', (await createAuthority('another')).cert)
      const how = 'Check that kubernetes.caFile holds the CA of this API server.'
      await site.run(
        'doctor',
        69,
        `[fail] api-server: https:// … verify the first certificate; the other … ${how}`,
      )
    },
  },
  {
    number: 12,
    mistake: 'the API server refuses connections; its name is mistyped',
    async play(site) {
      const look = (url: string, told: string) =>
        site.run('doctor', 69, `[fail] api-server: ${url} … ${told}`, {
          args: ['--set', `kubernetes.apiServer=${url}`],
        })
      await look(
        'https://127.0.0.1:1',
        'ECONNREFUSED … Check kubernetes.apiServer, and that the network lets',
      )
      // No resolver is asked for a name with an empty label.
      await look(
        'https://kubernetes..svc',
        'ENOTFOUND … Check the host in kubernetes.apiServer, and the DNS',
      )
    },
  },
  {
    number: 13,
    mistake: 'a mistyped namespace in the allow-list',
    async play(site) {
      const entry = '{namespace: opneclaw, serviceAccount: openclaw-worker}'
      const args = ['--set', `k8sTrust.allowedIdentities=[${entry}]`]
      await site.run(
        'doctor',
        69,
        '[fail] allow-list: … no ServiceAccount matches opneclaw/openclaw-worker … Correct k8sTrust.allowedIdentities',
        { args },
      )
      await site.serve({ args })
      await site.refuse('worker-a', '127.0.0.11')
      await site.run(
        'doctor',
        69,
        'pod openclaw/worker-a (ServiceAccount openclaw-worker) … not on the allow-list. … See runbook.md#identity_not_allowed.',
        { args },
      )
    },
  },
  {
    number: 24,
    mistake: 'the gateway listens on 0.0.0.0',
    site: { gateway: { host: '0.0.0.0' } },
    async play(site) {
      if (listDialable(networkInterfaces()).length === 0) {
        throw new Error('this machine has no address but loopback')
      }
      await site.run(
        'doctor',
        69,
        '[fail] gateway: the gateway also listens on … bypasses the sidecar … Bind the gateway to loopback',
      )
    },
  },
  {
    number: 25,
    mistake: 'the gateway is down',
    async play(site) {
      const args = ['--set', 'gateway.url=ws://127.0.0.1:1']
      const told = 'nothing listens on 127.0.0.1:1 … Start the gateway, or correct gateway.url.'
      await site.run('doctor', 69, `[fail] gateway: … ${told}`, { args })
      await site.watchLog(`"checks":{"gateway" … ${told}`, { args })
    },
  },
  {
    number: 27,
    mistake: 'SNAT: all workers come from one address',
    async play(site) {
      await site.serve()
      for (const n of [1, 2, 3, 4, 5]) {
        await site.refuse(`worker-${n}`, `127.0.0.1${n}`, { from: '127.0.0.99' })
      }
      await site.run(
        'doctor',
        69,
        '[fail] source-address: 5 pods were refused at 127.0.0.99 … the network hides the addresses of pods … Turn off masquerading (SNAT)',
      )
    },
  },
  {
    number: 29,
    mistake: "the sidecar's own token is missing, for another audience, or revoked",
    async play(site) {
      await site.run(
        'check-config',
        78,
        'kubernetes.tokenFile (/nowhere/token) … The file does not exist. … Mount the file there, or correct the path.',
        { args: ['--set', 'kubernetes.tokenFile=/nowhere/token'] },
      )
      const told =
        "[fail] api-server: … answered 401 to the sidecar's own credential … Mount a token for the API server's audience at token"
      await site.write('token', site.api.mintToken({ ...site.api.sidecar, audiences: ['another'] }))
      await site.run('doctor', 69, told)
      await site.setApiAhead(0)
      site.api.revokeSidecarToken()
      await site.run('doctor', 69, told)
    },
  },
  {
    number: 30,
    mistake: 'protocol openclaw, and a gateway that is not OpenClaw',
    site: { protocol: 'openclaw' },
    async play(site) {
      const told = 'sends no connect.challenge … set gateway.protocol to stream'
      await site.run('doctor', 69, `[fail] gateway-upgrade: … ${told}`)
      await site.watchLog(`the operator channel is down … ${told}`)
    },
  },
  {
    number: 33,
    mistake: 'outside a cluster, without a kubernetes section',
    async play(site) {
      await site.write('config.yaml', `${WORKERS}gateway: { protocol: stream }\n`)
      const told = 'kubernetes.apiServer … is not running in a pod … Set kubernetes.apiServer'
      await site.run('doctor', 69, `[fail] api-server: ${told}`)
      await site.run('serve', 78, told)
    },
  },
]
