/** A whole sidecar in a simulated world: cluster, gateway, workers, network, clock and files. */

import { compose } from '@openclaw-k8s/auth-sidecar/compose.ts'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { createLog } from '@openclaw-k8s/auth-sidecar/observe/log.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { startKubeApi } from '../kit/kube-api.ts'
import type { Pod } from '../kit/kube-store.ts'
import type { TokenRequest } from '../kit/kube-tokens.ts'
import { sidecarSettings } from '../kit/sidecar-settings.ts'
import { SeededRandom } from '../kit/soak.ts'
import { OFFERED } from './conversations.ts'
import { Deliveries } from './deliveries.ts'
import { isOpenClaw, SECRET, startSimGateway } from './gateway.ts'
import { SimNetwork } from './network.ts'
import { isOfWorker, Oracle } from './oracle.ts'
import type { Speech } from './schedule.ts'
import { settle } from './settle.ts'
import { collectObservers } from './observers.ts'
import { simulateTimers } from './timers.ts'
import { SimWorker } from './sim-worker.ts'
import { Truth, type PodTruth, type SimPolicy } from './truth.ts'

const NAMESPACE = 'openclaw'
export const ACCOUNTS = ['worker-red', 'worker-green', 'worker-blue'] as const
export const TOKEN_S = 600
/** How long the last reviews of a day take, in milliseconds. */
export const REVIEW_MS = 1000
const LATE_PODS = 3
const CA_FILE = '/sim/ca.crt'
const TOKEN_FILE = '/sim/token'
const SECRET_FILE = '/sim/gateway-secret'
const SEED_FILE = '/sim/device-seed'
const SEED = 'a-seed-of-more-than-sixteen-bytes'

export type World = Awaited<ReturnType<typeof startWorld>>

export type WorldOptions = {
  readonly seed: number
  readonly speech: Speech
  readonly expiredTokenGraceS: number
  /** The mean time between two events, in milliseconds. */
  readonly meanMs: number
}

/** Workers talk less on a long day. */
const PAUSE_MS_MIN = 20_000
const PAUSE_EVENTS = 20
/** A fault lasts at most as long as this number of events, and between these times, in milliseconds. */
const FAULT_EVENTS = 12
const FAULT_MS_MIN = 5000
const FAULT_MS_MAX = 60_000

export const startWorld = async (options: WorldOptions) => {
  const { seed, speech, expiredTokenGraceS, meanMs } = options
  const pauseMs = PAUSE_MS_MIN + PAUSE_EVENTS * meanMs
  const clock = new FakeClock()
  clock.advance(1)
  const restoreTimers = simulateTimers(clock)
  const endObservers = collectObservers()
  const random = new SeededRandom(seed * 3 + 1)
  const network = new SimNetwork({ clock, random: new SeededRandom(seed * 3 + 2) })
  const truth = new Truth()
  const now = () => clock.monotonic()
  const oracle: Oracle = new Oracle({
    truth,
    now,
    wall: clock.now,
    expiredTokenGraceMs: expiredTokenGraceS * 1000,
    isDialOpen: (port) => network.isDialOpen(port),
    // A connection that the gateway has left is closed towards its worker within two seconds.
    isGatewayWell: (agent) => {
      const own = gateway.connections
        .values()
        .filter(({ handshake }) => handshake.headers['user-agent'] === agent)
        .toArray()
      return own.length > 0 && own.every(({ behavior }) => behavior.kind === 'accept')
    },
  })
  const deliveries = new Deliveries({
    network,
    onTold: (told) => oracle.told(told),
    onToldList: (list) => oracle.toldList(list),
  })
  const api = await startKubeApi({
    clock,
    successCacheMs: 10_000,
    algs: ['ES256'],
    onWatchEvent: (event) => deliveries.sent(event),
    onList: (list) => deliveries.listed(list),
    onAuthenticated: (token) => oracle.reviewed(token),
  })
  const gateway = await startSimGateway({ speech, clock, network, oracle })
  network.name(api.port, 'api')
  network.name(gateway.port, 'gateway')
  const files = new Map([
    [CA_FILE, api.ca()],
    [TOKEN_FILE, api.sidecarToken()],
    [SECRET_FILE, SECRET],
    [SEED_FILE, SEED],
  ])
  const readFile = (path: string): string => {
    const text = files.get(path)
    if (text === undefined) throw new Error(`there is no file ${path}`)
    return text
  }
  const caFile = CA_FILE
  const tokenFile = TOKEN_FILE
  const flagsOf = {
    stream: ['k8sTrust.inBandCredentials=false'],
    'stream-in-band': [],
    openclaw: [`gateway.auth.secretFile=${SECRET_FILE}`, `gateway.deviceSeedFile=${SEED_FILE}`],
  }
  const protocol = isOpenClaw(speech) ? 'openclaw' : 'stream'
  const load = ({ accounts, commands }: SimPolicy) =>
    loadConfig({
      env: {},
      flags: [
        ...sidecarSettings({ gateway, api, caFile, tokenFile, protocol }),
        ...flagsOf[speech === 'openclaw-older' ? 'openclaw' : speech],
        `k8sTrust.expiredTokenReconnectGrace=${expiredTokenGraceS}s`,
        // Empty caches of full size would cost more than all the rest.
        'review.cacheEntries=1000',
        `k8sTrust.allowedIdentities=[${accounts
          .map(
            (each) =>
              `{namespace: ${NAMESPACE}, serviceAccount: ${each}, allowedCommands: [${commands.join(', ')}]}`,
          )
          .join(', ')}]`,
      ],
      readFile,
    })
  let policy: SimPolicy = { accounts: ACCOUNTS, commands: OFFERED }
  truth.allow(now(), policy)
  const sidecar = await compose(load(policy).config, {
    clock,
    network,
    random: () => random.next(),
    env: {},
    readFile,
    log: createLog('trace', { write: (line) => oracle.wroteLog(line) }),
    writeAudit: (line) => oracle.wroteAudit(line),
    version: { version: 'simulated' },
  })
  const { workers: workerAddress, admin } = await sidecar.start()
  const workerPort = Number(workerAddress.split(':').at(-1))
  network.name(workerPort, 'workers')
  const adminPort = Number(admin.split(':').at(-1))
  network.name(adminPort, 'admin')

  const workers = new Map<string, SimWorker>()
  /** Workers whose pod is gone and who have not noticed. */
  const zombies = new Set<SimWorker>()
  const tokens = new Map<string, string>()
  let messages = 0
  let stalledUntil = 0
  let addresses = 0
  let names = 0
  const nextAddress = () => {
    addresses += 1
    return `10.1.${addresses >> 8}.${addresses & 255}`
  }
  const accountUid = (name: string): string =>
    api.getServiceAccount(NAMESPACE, name)?.metadata.uid ?? ''
  const mint = (pod: Pod, expiresInS = TOKEN_S): string => {
    const token = api.mintToken({ pod, expiresInS })
    oracle.minted(token, accountUid(pod.spec.serviceAccountName))
    return token
  }
  const removeAccount = (account: string, uid: string): void => {
    truth.accountGone(uid, account, now())
    api.deleteServiceAccount(NAMESPACE, account)
  }
  const runWorker = (pod: PodTruth, crime?: string, token?: string, address?: string) => {
    const worker = new SimWorker({
      clock,
      random,
      network,
      oracle,
      speech,
      pauseMs,
      workerPort,
      podUid: pod.uid,
      podName: pod.name,
      readAddress: () => address ?? pod.addresses.at(-1)?.address ?? '',
      readToken: () => token ?? tokens.get(pod.uid) ?? '',
      ...(crime === undefined ? {} : { crime }),
    })
    worker.start()
    return worker
  }
  const addPod = (pod: Pod): PodTruth => {
    const account = pod.spec.serviceAccountName
    const known: PodTruth = {
      name: pod.metadata.name,
      uid: pod.metadata.uid,
      account,
      addresses: [{ address: pod.status.podIP ?? '', untilMs: Infinity }],
    }
    truth.pods.set(known.uid, known)
    tokens.set(known.uid, mint(pod))
    workers.set(known.uid, runWorker(known))
    return known
  }
  const createPod = (name: string, account: string): Pod =>
    api.createPod({
      namespace: NAMESPACE,
      name,
      serviceAccount: account,
      ips: [nextAddress()],
      nodeName: 'node-1',
    })
  for (const account of ACCOUNTS) api.createServiceAccount(NAMESPACE, account)

  /** What is still to come by itself: all of it is brought forward when the world heals. */
  const pending = new Set<() => void>()
  const later = (ms: number, run: () => void): void => {
    const cancel = clock.after(ms, () => {
      pending.delete(early)
      run()
    })
    const early = () => {
      cancel()
      run()
    }
    pending.add(early)
  }

  const world = {
    clock,
    network,
    truth,
    api,
    gateway,
    oracle,
    sidecar,
    random,
    workers,
    zombies,
    tokens,
    files,
    now,
    mint,
    runWorker,
    tokenFile: TOKEN_FILE,
    /** The longest that a fault lasts, in milliseconds. */
    faultMsMax: Math.min(FAULT_MS_MAX, Math.max(FAULT_MS_MIN, FAULT_EVENTS * meanMs)),
    namespace: NAMESPACE,
    adminPort,
    later,
    accountUid,
    renewToken: (pod: PodTruth): void => {
      const found = api.getPod(NAMESPACE, pod.name)
      const account = api.getServiceAccount(NAMESPACE, pod.account)
      if (found?.metadata.uid !== pod.uid || account === undefined) return
      tokens.set(pod.uid, mint(found))
    },
    /** Until when the kubelet writes no new token, on the monotonic clock. */
    stallKubelet: (ms: number): void => void (stalledUntil = Math.max(stalledUntil, now() + ms)),
    renewTokens: (): void => {
      if (now() < stalledUntil) return
      for (const pod of world.livePods()) world.renewToken(pod)
    },
    rotateKeys: async (how: { readonly keepOld: boolean }): Promise<void> => {
      await api.rotateKeys(how)
      if (!how.keepOld) oracle.voidTokens()
    },
    stepWall: (ms: number): void => clock.stepWall(ms),
    /** Somebody uses a token that must not be believed. */
    attack: (pod: PodTruth, crime: string, request: TokenRequest): SimWorker | undefined => {
      const found = api.getPod(NAMESPACE, pod.name)
      const account = api.getServiceAccount(NAMESPACE, pod.account)
      if (found === undefined || account === undefined) return undefined
      const token = api.mintToken({ pod: found, expiresInS: TOKEN_S, ...request })
      oracle.minted(token, '')
      const isThief = Object.keys(request).length === 0
      const attacker = runWorker(pod, crime, token, isThief ? nextAddress() : undefined)
      zombies.add(attacker)
      return attacker
    },
    /** Every fault ends now. */
    heal: (): void => {
      for (const early of pending) {
        pending.delete(early)
        early()
      }
      stalledUntil = 0
      api.clearFaults()
      api.lagWatches(0)
      network.heal()
      gateway.heal()
    },
    livePods: (): readonly PodTruth[] =>
      [...truth.pods.values()].filter(
        ({ goneAt, terminatingAt }) => goneAt === undefined && terminatingAt === undefined,
      ),
    createPod: (account: string): PodTruth => {
      names += 1
      return addPod(createPod(`worker-${names}`, account))
    },
    /** The object is gone. Its worker runs on for a while, as on a node that is cut off. */
    podGone: (pod: PodTruth, zombieMs: number): void => {
      pod.goneAt = now()
      const worker = workers.get(pod.uid)
      workers.delete(pod.uid)
      if (worker === undefined) return
      zombies.add(worker)
      clock.after(zombieMs, () => {
        worker.stop()
        zombies.delete(worker)
      })
    },
    /** The object is deleted at once, and its worker runs on for a while. */
    deletePod: (pod: PodTruth, zombieMs: number): void => {
      api.deletePod(NAMESPACE, pod.name)
      world.podGone(pod, zombieMs)
    },
    terminatePod: (pod: PodTruth, graceMs: number): void => {
      pod.terminatingAt = now()
      pod.graceMs = graceMs
      api.deletePod(NAMESPACE, pod.name, { gracePeriodSeconds: graceMs / 1000 })
      later(graceMs, () => {
        api.finishPod(NAMESPACE, pod.name)
        world.podGone(pod, 0)
      })
    },
    /** Another one has its name after a while. */
    deleteAccount: (account: string, ms: number): void => {
      const uid = accountUid(account)
      if (uid === '') return
      removeAccount(account, uid)
      later(ms, () => {
        if (accountUid(account) !== '') return
        api.createServiceAccount(NAMESPACE, account)
        // The kubelet asks for new tokens, for the account of the same name.
        world.renewTokens()
      })
    },
    /** A pod of the same name and account, after one that is gone. */
    createNamesake: ({ name, account }: PodTruth): void => {
      if (api.getPod(NAMESPACE, name) === undefined) addPod(createPod(name, account))
    },
    recreatePod: (pod: PodTruth): PodTruth =>
      addPod(api.recreatePod(NAMESPACE, pod.name, { ips: [nextAddress()] })),
    movePod: (pod: PodTruth): void => {
      const address = nextAddress()
      const last = pod.addresses.at(-1)
      if (last !== undefined) last.untilMs = now()
      pod.addresses.push({ address, untilMs: Infinity })
      api.patchPod(NAMESPACE, pod.name, {
        status: { podIP: address, podIPs: [{ ip: address }] },
      })
    },
    reload: (change: Partial<SimPolicy>): void => {
      policy = { ...policy, ...change }
      truth.allow(now(), policy)
      sidecar.reload(() => load(policy))
    },
    isAllowed: (account: string): boolean => policy.accounts.includes(account),
    /** The pods that have gone in the last half minute. */
    lately: (): readonly PodTruth[] =>
      [...truth.pods.values()].filter(({ goneAt = -Infinity }) => now() - goneAt < 30_000),
    /** A second process of a pod, for a while; with a token that only it has, where it is to expire. */
    runSecond: (pod: PodTruth, ms: number, expiresInS?: number): void => {
      const found = accountUid(pod.account) === '' ? undefined : api.getPod(NAMESPACE, pod.name)
      const isShort = expiresInS !== undefined && found !== undefined
      const second = runWorker(pod, undefined, isShort ? mint(found, expiresInS) : undefined)
      zombies.add(second)
      later(ms, () => {
        second.stop()
        zombies.delete(second)
      })
    },
    /** A process that shows its token for the first time when that has expired. */
    runLate: (pod: PodTruth, late: { readonly expiresInS: number; readonly lateMs: number }) => {
      const found = accountUid(pod.account) === '' ? undefined : api.getPod(NAMESPACE, pod.name)
      if (found === undefined) return
      const token = mint(found, late.expiresInS)
      later(late.expiresInS * 1000 + late.lateMs, () => {
        const worker = runWorker(pod, undefined, token)
        zombies.add(worker)
        later(20_000, () => {
          worker.stop()
          zombies.delete(worker)
        })
      })
    },
    /** Hands what has come since the last call to the oracle. */
    look: (): void => {
      deliveries.check()
      const fresh = gateway.receivedTotal() - messages
      messages += fresh
      for (const { connection, data } of gateway.received.slice(gateway.received.length - fresh)) {
        const { behavior, handshake } = connection
        if (!isOfWorker(handshake.headers)) oracle.reachedAsOperator(data.toString())
        // A gateway that does not read hears of its messages long after they arrived.
        else if (behavior.kind !== 'silent') {
          oracle.reached(handshake.headers['user-agent'] ?? '')
        }
      }
      oracle.check()
    },
    rest: () => settle(() => network.activity),
    /** Some come with new tokens, whose reviews take long. */
    comeLate: (): void => {
      api.setFault('tokenReviews', { kind: 'delay', ms: REVIEW_MS })
      for (const pod of world.livePods().slice(0, LATE_PODS)) {
        world.runSecond(pod, PAUSE_MS_MIN, TOKEN_S)
      }
    },
    /** Every worker process ends. */
    dismiss: (): void => {
      for (const worker of [...workers.values(), ...zombies]) worker.stop()
    },
    /** Every pod is deleted. */
    deletePods: (): void => {
      for (const { goneAt, name } of truth.pods.values()) {
        if (goneAt === undefined) api.deletePod(NAMESPACE, name)
      }
    },
    /** Ends what is not the sidecar. */
    close: async (): Promise<void> => {
      await api.stop()
      await gateway.close()
      restoreTimers()
      endObservers()
    },
  }
  return world
}
