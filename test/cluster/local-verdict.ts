/** The sidecar's own verdict on a token while nobody can be asked: what `verify-locally` admits on. */

import { createPrecheck } from '@openclaw-k8s/auth-sidecar/authn/precheck.ts'
import { TokenAuthenticator } from '@openclaw-k8s/auth-sidecar/authn/authenticator.ts'
import { PodBinding } from '@openclaw-k8s/auth-sidecar/authz/pod-binding.ts'
import { createPolicy } from '@openclaw-k8s/auth-sidecar/authz/policy.ts'
import type { Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import { KubeClient } from '@openclaw-k8s/auth-sidecar/kube/client.ts'
import { Jwks } from '@openclaw-k8s/auth-sidecar/kube/jwks.ts'
import { OwnCredentials } from '@openclaw-k8s/auth-sidecar/kube/own-credentials.ts'
import { PodWatch } from '@openclaw-k8s/auth-sidecar/kube/pod-watch.ts'
import { createLookups } from '@openclaw-k8s/auth-sidecar/kube/lookups.ts'
import { WatchClient } from '@openclaw-k8s/auth-sidecar/kube/watch-stream.ts'
import { TokenBuckets } from '@openclaw-k8s/auth-sidecar/lib/token-buckets.ts'
import type { ClusterRig } from './cluster-rig.ts'
import { waitForProcess } from '../kit/wait.ts'
import { settle } from './rig.ts'

export type LocalVerdict = Awaited<ReturnType<typeof startLocalVerdict>>

/** Everything is the sidecar's, on the live watch; only the review always fails. */
export const startLocalVerdict = async (cluster: ClusterRig, accounts: readonly string[]) => {
  const { config, runtime } = await settle(cluster, { accounts })
  const { clock, random, readFile } = runtime
  const { apiServer, caFile = '', tokenFile = '' } = config.kubernetes
  const common = {
    apiServer: new URL(apiServer ?? ''),
    clock,
    credentials: new OwnCredentials({ tokenFile, caFile, readFile, clock }),
    onOwnCredentialRefused() {},
  }
  const client = new KubeClient({
    ...common,
    concurrency: 16,
    queue: 10_000,
    faultCode: 'pod_unconfirmed',
  })
  const watches = new WatchClient(common)
  const jwks = new Jwks({
    client,
    clock,
    random,
    isIssuerConfigured: false,
    onIssuerAsked() {},
    onIssuerChanged() {},
    onReviewOnly() {},
    cooldownMs: 0,
    refreshMs: 3_600_000,
    staleAfterMs: 3_600_000,
    deadlineMs: 5000,
    onFetched() {},
    onFailed() {},
  })
  const watch = new PodWatch({
    lists: client,
    watches,
    clock,
    random,
    onDown() {},
    onUp() {},
  })
  const { k8sTrust } = config
  const policy = createPolicy(k8sTrust.allowedIdentities)
  const buckets = () => new TokenBuckets({ ratePerSecond: 1, burst: 1, clock })
  const precheck = createPrecheck({
    rules: () => ({
      issuers: () => (jwks.issuer === undefined ? [] : [jwks.issuer]),
      audiences: k8sTrust.audiences,
      maxTokenLifetimeMs: k8sTrust.maxTokenLifetime,
      isListed: policy.isListed,
    }),
    keys: jwks,
    clock,
    unverifiedBudget: { perAddress: buckets(), inAll: buckets(), seen: buckets() },
    findUnseen: async () => undefined,
  })
  const outage = async () => {
    throw new Fault('review_unavailable', 'an outage')
  }
  const authenticator = new TokenAuthenticator({
    verdicts: { find: outage, invalidatePod() {} },
    clock,
    rules: () => ({
      expiredTokenReconnectGraceMs: 0,
      onApiOutage: 'verify-locally',
      maxWatchStalenessMs: k8sTrust.maxWatchStaleness,
    }),
    watchStaleMs: (claims) => watch.scopes.staleForMs(claims),
    isIssuerKnown: ({ issuer }) => jwks.issuers.includes(issuer),
    entriesMax: 1,
  })
  const binding = new PodBinding({
    pods: watch,
    rules: () => k8sTrust,
    clock,
    ...createLookups(client, 5000),
  })

  await jwks.start()
  watch.watch(accounts.map((serviceAccount) => ({ namespace: cluster.namespace, serviceAccount })))
  await waitForProcess('the first lists', 10_000, () => watch.scopes.isReady)

  return {
    watch,
    issuer: jwks.issuer ?? '',
    judge: async (token: string, address: string): Promise<'ok' | Code> => {
      try {
        const claims = precheck.read(token)
        if (!claims.ok) return claims.code
        const signature = await precheck.verify(token, address)
        if (!signature.ok) return signature.code
        const vouched = await authenticator.authenticate(token, claims.value, signature.value)
        if (!vouched.ok) return vouched.code
        const bound = await binding.bind({ claims: claims.value, address }, true)
        return bound.ok ? 'ok' : bound.code
      } catch (error) {
        if (error instanceof Fault) return error.code
        throw error
      }
    },
    stop: async () => {
      jwks.stop()
      watch.stop()
      await client.close()
      await watches.close()
    },
  }
}
