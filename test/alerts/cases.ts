/** What brings a sidecar into the state of each alert, and out of it again. */

import { connect } from 'node:net'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { TLS_CASES } from './cases-tls.ts'
import { HOSTING_CASE } from './hosting-case.ts'
import { HELD_ADDRESS, onSite, type AlertCase, type Site, type SiteCase } from './site.ts'

const SECRET = 'the-secret-of-the-gateway'
const rest = (site: Site) => site.rest()

/** An attempt by a token that is bent in this way, three times a second. */
const failing =
  (request: Parameters<Site['mint']>[0]) =>
  (site: Site): void => {
    const pod = site.createPod()
    const token = site.mint({ pod, ...request })
    site.repeat(150, () => site.attempt(token))
  }

/** Each with a new token, so that no cached verdict answers. */
const attempting =
  (everyMs = 150) =>
  (site: Site): void => {
    const pod = site.createPod()
    site.repeat(everyMs, (nth) => site.attempt(site.mint({ pod, expiresInS: 3600 + nth })))
  }

/** A module that takes the listeners from a socket of this address, and has it fail. */
const PLANTED = `data:text/javascript,${encodeURIComponent(`
import { subscribe } from 'node:diagnostics_channel'
subscribe('net.server.socket', ({ socket }) => {
  if (socket.remoteAddress !== '127.0.0.66') return
  setImmediate(() => socket.removeAllListeners('error').emit('error', new Error('planted')))
})`)}`

const operatorSettings = async (directory: string) => {
  const secretFile = join(directory, 'gateway-secret')
  const seedFile = join(directory, 'seed')
  await writeFile(secretFile, SECRET)
  await writeFile(seedFile, 'a-seed-of-more-than-sixteen-bytes')
  return [`gateway.auth.secretFile=${secretFile}`, `gateway.deviceSeedFile=${seedFile}`]
}

const AVAILABILITY: readonly SiteCase[] = [
  {
    alerts: ['OpenClawSidecarDown'],
    state: 'the process is gone',
    provoke: (site) => site.kill(),
    relieve: (site) => site.start(),
  },
  {
    alerts: ['OpenClawSidecarAbsent'],
    state: 'the monitor selects nothing',
    provoke: (_, targets) => targets.remove(),
    relieve: (_, targets) => targets.add(),
  },
  {
    alerts: ['OpenClawSidecarRestarting'],
    state: 'the process starts again and again',
    async provoke(site) {
      for (let n = 0; n < 4; n += 1) {
        await site.kill()
        await site.start()
        // Some scrapes, so that each start is seen.
        await sleep(2500)
      }
    },
    relieve: () => {},
  },
  {
    alerts: ['OpenClawNoWorkersConnected'],
    state: 'the pod is there, its stream is gone',
    async provoke(site) {
      const token = site.mint({ pod: site.createPod() })
      const socket = await site.openStream(token)
      await sleep(1500)
      socket.terminate()
    },
    relieve: (site) =>
      site.openStream(site.mint({ pod: site.createPod('worker-b', '127.0.0.12') }), '127.0.0.12'),
  },
  {
    alerts: ['OpenClawNotReady', 'OpenClawSigningKeysOld'],
    state: 'the signing keys never came; nobody tries to get in',
    site: {
      prepare: (api) => api.setFault('jwks', { kind: 'status', status: 500 }),
      set: () => ['jwks.cooldown=1s', 'jwks.refresh=2s'],
    },
    provoke: () => {},
    relieve: (site) => site.api.clearFaults(),
  },
]

const ADMISSION: readonly SiteCase[] = [
  {
    alerts: ['OpenClawAdmissionFaults', 'OpenClawTokenReviewsFailing'],
    state: 'TokenReviews are answered 500',
    provoke(site) {
      site.api.setFault('tokenReviews', { kind: 'status', status: 500 })
      attempting()(site)
    },
    relieve(site) {
      site.api.clearFaults()
      // The share falls once some succeed.
    },
  },
  {
    alerts: ['OpenClawDenialsHigh', 'OpenClawFailedAttempts'],
    state: 'tokens for another audience',
    provoke: failing({ audiences: ['https://kubernetes.default.svc'] }),
    relieve: rest,
  },
  {
    alerts: ['OpenClawStaleTokens'],
    state: 'the same expired token again and again',
    provoke: (site) => failing({ nowMs: Date.now() - 7_200_000, expiresInS: 3600 })(site),
    relieve: rest,
  },
  {
    alerts: ['OpenClawHandshakesRefused'],
    state: 'clients without a credential',
    site: { set: () => ['k8sTrust.inBandCredentials=false'] },
    provoke: (site) =>
      site.repeat(150, async () => {
        const { socket } = await rawUpgrade({ port: site.port, localAddress: '127.0.0.11' })
        socket.destroy()
      }),
    relieve: rest,
  },
  {
    alerts: ['OpenClawRateLimited'],
    state: 'an address beyond limits.failuresPerAddress',
    site: { set: () => ['limits.failuresPerAddress=1/s'] },
    provoke: failing({ audiences: ['another'] }),
    relieve: rest,
  },
  {
    alerts: ['OpenClawAdmissionSlow', 'OpenClawTokenReviewsSlow'],
    state: 'a TokenReview takes 3 s',
    site: { set: () => ['review.timeout=8s'] },
    provoke(site) {
      site.api.setFault('tokenReviews', { kind: 'delay', ms: 3000 })
      attempting(300)(site)
    },
    relieve: rest,
  },
  {
    alerts: ['OpenClawPendingNearLimit'],
    state: 'all places for handshakes are taken',
    site: {
      set: () => ['limits.pending=8', 'limits.pendingPerAddress=8', 'limits.handshakeTimeout=5m'],
    },
    provoke(site) {
      site.hold(8)
      // Another address would take a place from this one.
      const token = site.mint({ pod: site.createPod('worker-a', HELD_ADDRESS) })
      site.repeat(150, () => site.attempt(token, HELD_ADDRESS))
    },
    relieve: rest,
  },
  {
    alerts: ['OpenClawStreamsNearLimit'],
    state: 'limits.streams is reached',
    site: { set: () => ['limits.streams=1'] },
    async provoke(site) {
      await site.openStream(site.mint({ pod: site.createPod() }))
      const token = site.mint({ pod: site.createPod('worker-b', '127.0.0.12') })
      site.repeat(150, () => site.attempt(token, '127.0.0.12'))
    },
    relieve: rest,
  },
]

const CLUSTER: readonly SiteCase[] = [
  {
    alerts: ['OpenClawOwnCredentialRefused', 'OpenClawWatchStale'],
    state: 'the API server answers 403 to all; nobody tries to get in',
    provoke(site) {
      site.api.setFault('*', { kind: 'status', status: 403 })
      site.api.dropWatches()
    },
    relieve: (site) => site.api.clearFaults(),
  },
  {
    alerts: ['OpenClawScopeNotListed'],
    state: 'one namespace of the allow-list is forbidden',
    site: {
      prepare: (api) =>
        api.setFault('lists', { kind: 'status', status: 403 }, { namespace: 'other' }),
      set: () => [
        'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker}, {namespace: other, serviceAccount: openclaw-worker}]',
      ],
    },
    provoke: () => {},
    relieve: (site) => site.api.clearFaults('lists', 'other'),
  },
  {
    alerts: ['OpenClawOwnTokenExpiring'],
    state: 'the kubelet does not renew the token; nobody tries to get in',
    provoke: (site) => writeFile(site.tokenFile, site.api.sidecarToken({ expiresInS: 20 })),
    relieve: (site) => writeFile(site.tokenFile, site.api.sidecarToken()),
  },
]

const TUNNEL: readonly SiteCase[] = [
  {
    alerts: ['OpenClawGatewayDown'],
    state: 'nothing listens at the gateway; nobody tries to get in',
    provoke: (site) => site.gateway.close(),
    relieve: (site) => site.replaceGateway(),
  },
  {
    alerts: ['OpenClawOperatorChannelDown'],
    state: 'the gateway has another secret; nobody tries to get in',
    site: {
      protocol: 'openclaw',
      gateway: { mode: 'openclaw', token: SECRET },
      set: operatorSettings,
    },
    provoke: (site) => site.replaceGateway({ mode: 'openclaw', token: 'another-secret' }),
    relieve: (site) => site.replaceGateway(),
  },
  {
    alerts: ['OpenClawGatewayUnreachable'],
    state: 'the gateway hangs up on every worker',
    provoke(site) {
      site.gateway.setBehavior('refuse')
      attempting()(site)
    },
    relieve: (site) => site.gateway.setBehavior('accept'),
  },
  {
    alerts: ['OpenClawRevocationSlow'],
    state: 'the process is stopped while a stream should end',
    async provoke(site) {
      const socket = await site.openStream(site.mint({ pod: site.createPod() }))
      await sleep(1200)
      // It does not answer the close.
      socket.pause()
      site.api.deletePod('openclaw', 'worker-a')
      await sleep(200)
      site.signal('SIGSTOP')
      await sleep(2000)
      site.signal('SIGCONT')
    },
    relieve: () => {},
  },
  {
    alerts: ['OpenClawStreamsBroken'],
    state: 'frames that are not masked',
    provoke(site) {
      const token = site.mint({ pod: site.createPod() })
      site.repeat(250, async () => {
        const { socket } = await rawUpgrade({
          port: site.port,
          localAddress: '127.0.0.11',
          lines: upgradeLines('/', [`Authorization: Bearer ${token}`]),
        })
        socket.end(Buffer.from([0x82, 0x01, 0x00]))
      })
    },
    relieve: rest,
  },
]

const PROCESS: readonly SiteCase[] = [
  {
    alerts: ['OpenClawReloadFailed'],
    state: 'the configuration file has a mistake',
    provoke: (site) => writeFile(site.configFile, 'log: { level: loud }\n'),
    relieve: (site) => writeFile(site.configFile, 'log: { level: info }\n'),
  },
  {
    alerts: ['OpenClawUncaughtPeerErrors'],
    state: 'a socket error without a listener, planted',
    site: { preload: PLANTED },
    provoke: (site) =>
      connect({ port: site.port, host: '127.0.0.1', localAddress: '127.0.0.66' }).on(
        'error',
        () => {},
      ),
    relieve: () => {},
  },
  {
    alerts: ['OpenClawLogLinesDropped'],
    state: 'nobody reads the audit any more',
    provoke(site) {
      site.abandonStdout()
      failing({ audiences: ['another'] })(site)
    },
    relieve: rest,
  },
  {
    alerts: ['OpenClawEventLoopLag'],
    state: 'the process gets too little CPU',
    provoke: (site) =>
      // Often enough that no scrape sees a good half second, and leaves time to answer it.
      site.repeat(130, async () => {
        site.signal('SIGSTOP')
        await sleep(230)
        site.signal('SIGCONT')
      }),
    async relieve(site) {
      site.rest()
      await sleep(500)
      site.signal('SIGCONT')
    },
  },
  {
    alerts: ['OpenClawFileDescriptorsLow'],
    state: 'almost all file descriptors are taken',
    site: {
      openFilesMax: 128,
      set: () => ['limits.handshakeTimeout=5m', 'limits.pendingPerAddress=1000'],
    },
    provoke: (site) => site.hold(85),
    relieve: rest,
  },
]

export const CASES: readonly AlertCase[] = [
  ...[...AVAILABILITY, ...TLS_CASES, ...ADMISSION, ...CLUSTER, ...TUNNEL, ...PROCESS].map(onSite),
  HOSTING_CASE,
]
