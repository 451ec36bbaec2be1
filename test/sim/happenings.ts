/** What each kind of event does to the world. Faults heal by themselves after a while. */

import type { ApiFault, Route } from '../kit/kube-faults.ts'
import type { Peer } from './network.ts'
import { OFFERED } from './conversations.ts'
import { lengthOf, pick, trouble, withPod, type Dice, type Happening } from './happening.ts'
import { RACE_HAPPENINGS } from './races.ts'
import { waitFor } from './settle.ts'
import type { EventKind } from './schedule.ts'
import { ACCOUNTS, TOKEN_S, type World } from './world.ts'

const ROUTES = [
  '*',
  'tokenReviews',
  'lists',
  'watches',
  'podGets',
  'serviceAccountGets',
  'jwks',
] as const satisfies readonly (Route | '*')[]
const PEERS = ['workers', 'api', 'gateway'] as const satisfies readonly Peer[]
const STATUSES = [401, 403, 404, 429, 500, 503] as const
const OUTAGE = '[invalid bearer token, etcdserver: request timed out]'

const apiFault = (world: World, [where, , long]: Dice, fault: ApiFault): void => {
  const route = pick(ROUTES, where) ?? '*'
  world.api.setFault(route, fault)
  trouble(world, 'api', lengthOf(world, long), () => world.api.clearFaults(route))
}

export const HAPPENINGS: Readonly<Record<EventKind, Happening>> = {
  ...RACE_HAPPENINGS,
  'create-pod': (world, [which]) => {
    if (world.livePods().length < 50) world.createPod(pick(ACCOUNTS, which) ?? ACCOUNTS[0])
  },
  'delete-pod': (world, [which, long]) =>
    withPod(world, which, (pod) => world.deletePod(pod, lengthOf(world, long))),
  'terminate-pod': (world, [which, grace]) =>
    withPod(world, which, (pod) => world.terminatePod(pod, 1000 * Math.floor(1 + grace * 70))),
  'recreate-pod': (world, [which, long]) =>
    withPod(world, which, (pod) => {
      world.recreatePod(pod)
      world.podGone(pod, lengthOf(world, long))
    }),
  'move-pod': (world, [which]) => withPod(world, which, (pod) => world.movePod(pod)),
  'delete-account': (world, [which, , long]) =>
    world.deleteAccount(pick(ACCOUNTS, which) ?? ACCOUNTS[0], lengthOf(world, long)),
  reload: (world, [which, , long]) => {
    const isOfCommands = which > 0.6
    world.reload(
      isOfCommands
        ? { commands: OFFERED.filter((_, n) => n !== Math.floor((which - 0.6) * 9)) }
        : { accounts: ACCOUNTS.filter((_, n) => n !== Math.floor(which * 5)) },
    )
    world.later(lengthOf(world, long), () =>
      world.reload(isOfCommands ? { commands: OFFERED } : { accounts: ACCOUNTS }),
    )
  },
  'rotate-worker-token': (world, [which]) => withPod(world, which, (pod) => world.renewToken(pod)),
  'rotate-own-token': (world) => {
    world.files.set(world.tokenFile, world.api.sidecarToken())
  },
  'refuse-own-token': (world, [, , long]) => {
    world.api.revokeSidecarToken()
    trouble(world, 'api', lengthOf(world, long), () =>
      world.files.set(world.tokenFile, world.api.sidecarToken()),
    )
  },
  'kubelet-stalls': (world, [much]) => world.stallKubelet(much * 2 * TOKEN_S * 1000),
  'second-process': (world, [which, , long]) =>
    withPod(world, which, (pod) => world.runSecond(pod, lengthOf(world, long))),
  'token-of-a-gone-pod': (world, [which, , long]) => {
    const pod = pick(world.lately(), which)
    if (pod !== undefined) world.runSecond(pod, lengthOf(world, long))
  },
  'short-token': (world, [which, much, long]) =>
    withPod(world, which, (pod) => {
      const expiresInS = 1 + Math.floor(much * 60)
      world.runSecond(pod, 30_000 + lengthOf(world, long), expiresInS)
    }),
  'api-status': (world, dice) =>
    apiFault(world, dice, {
      kind: 'status',
      status: pick(STATUSES, dice[1]) ?? 500,
      body: 'simulated trouble',
    }),
  'api-hang': (world, dice) => apiFault(world, dice, { kind: 'hang' }),
  'api-delay': (world, dice) =>
    apiFault(world, dice, { kind: 'delay', ms: 100 + Math.floor(dice[1] * 10_000) }),
  'api-cut': (world, dice) =>
    apiFault(
      world,
      dice,
      dice[1] < 0.5
        ? { kind: 'reset' }
        : { kind: 'halfBody', ending: dice[1] < 0.75 ? 'cut' : 'stall' },
    ),
  'api-garbage': (world, dice) => apiFault(world, dice, { kind: 'garbage' }),
  'review-outage': (world, [, , long]) => {
    world.api.setFault('tokenReviews', {
      kind: 'rewriteReview',
      rewrite: (review) => ({ ...review, status: { error: OUTAGE, user: {} } }),
    })
    trouble(world, 'api', lengthOf(world, long), () => world.api.clearFaults('tokenReviews'))
  },
  'api-restart': (world, [, , long]) => {
    world.network.stop('api')
    trouble(world, 'api', lengthOf(world, long), () => world.network.start('api'))
  },
  'api-other-keys': (world, [, , long]) => {
    world.network.stop('api')
    waitFor(world.rotateKeys({ keepOld: false }))
    trouble(world, 'api', lengthOf(world, long), () => {
      world.network.start('api')
      world.renewTokens()
    })
  },
  'rotate-keys': (world, [keep]) => {
    waitFor(world.rotateKeys({ keepOld: keep < 0.7 }))
    // The kubelet asks for a new token only when the old one grows old.
    world.later(500, () => world.renewTokens())
  },
  'drop-watches': (world) => {
    world.api.dropWatches()
    trouble(world, 'api', 1000)
  },
  'mute-watches': (world, [which]) => {
    world.api.blackholeWatches(which < 0.3 ? undefined : which < 0.6 ? 'pods' : 'serviceaccounts')
    trouble(world, 'watches', 1000)
  },
  'lag-watches': (world, [, much, long]) => {
    world.api.lagWatches(Math.floor(much ** 2 * 10_000))
    const ms = lengthOf(world, long)
    trouble(world, 'watches', ms, () => world.api.lagWatches(0))
    trouble(world, 'delay', ms)
  },
  'expire-watches': (world) => {
    world.api.expireWatches()
    trouble(world, 'api', 1000)
  },
  hold: (world, [which, , long]) => {
    const peer = pick(PEERS, which) ?? 'api'
    world.network.hold(peer)
    trouble(world, peer, lengthOf(world, long), () => world.network.release(peer))
  },
  vanish: (world, [which, , long]) => {
    const peer = pick(PEERS, which) ?? 'api'
    world.network.vanish(peer)
    trouble(world, peer, lengthOf(world, long), () => world.network.find(peer))
  },
  slow: (world, [which, much, long]) => {
    const peer = pick(PEERS, which) ?? 'api'
    world.network.setDelay(peer, Math.floor(much * 2000))
    trouble(world, peer, lengthOf(world, long), () => world.network.setDelay(peer, 2))
  },
  cut: (world, [which, much, long]) => {
    const peer = pick(PEERS, which) ?? 'api'
    world.network.setCuts(peer, much)
    trouble(world, peer, lengthOf(world, long), () => world.network.setCuts(peer, 0))
  },
  reset: (world, [which, much]) => {
    const peer = pick(PEERS, which) ?? 'api'
    world.network.reset(peer, much)
    trouble(world, peer, 1000)
  },
  'half-close': (world, [which, end, who]) => {
    const peer = pick(PEERS, which) ?? 'api'
    world.network.halfClose(peer, who, end < 0.5)
    trouble(world, peer, 1000)
  },
  'gateway-behavior': (world, [which, many]) => {
    const behavior = pick(
      ['stall', 'refuse', 'wrong-accept', 'drop', 'close', 'silent', 'status', 'mute'] as const,
      which,
    )
    if (behavior === undefined) return
    world.gateway.setBehavior(behavior, { connections: 1 + Math.floor(many * 10) })
  },
  'gateway-leave': (world, [how, which]) => {
    const connections = [...world.gateway.connections]
    const left = connections.filter(
      (_, n) => which < 0.3 || n === Math.floor(which * connections.length),
    )
    for (const connection of left) {
      if (how < 0.5) connection.terminate()
      else connection.close(1012, 'service restart')
    }
  },
  'gateway-restart': (world, [, , long]) => {
    world.network.stop('gateway')
    trouble(world, 'gateway', lengthOf(world, long), () => world.network.start('gateway'))
  },
  'gateway-refuse': (world, [many]) => world.gateway.refuseNodes(1 + Math.floor(many * 10)),
  'gateway-forget': (world) => {
    // The records go with the process that holds them.
    world.network.reset('gateway')
    world.gateway.forgetDevices()
    trouble(world, 'gateway', 1000)
  },
  'clock-step': (world, [much]) => world.stepWall(Math.floor((much - 0.5) * 60_000)),
  attack: (world, [how, whose, long]) =>
    withPod(world, whose, (pod) => {
      const crimes = {
        'a token from another address': () => world.attack(pod, 'a token from another address', {}),
        'a forged token': () => world.attack(pod, 'a forged token', { key: 'forged' }),
        'a token of another key': () =>
          world.attack(pod, 'a token of another key', { key: 'other' }),
        'a token for another audience': () =>
          world.attack(pod, 'a token for another audience', { audiences: ['someone-else'] }),
        'an old token': () =>
          world.attack(pod, 'an old token', {
            nowMs: world.clock.now() - 2 * TOKEN_S * 1000,
            expiresInS: TOKEN_S,
          }),
        'a token without a pod': () =>
          world.attack(pod, 'a token without a pod', {
            claims: {
              'kubernetes.io': {
                namespace: world.namespace,
                serviceaccount: { name: pod.account, uid: world.accountUid(pod.account) },
              },
            },
          }),
      }
      const attacker = pick(Object.values(crimes), how)?.()
      if (attacker !== undefined) world.later(lengthOf(world, long), () => attacker.stop())
    }),
}
