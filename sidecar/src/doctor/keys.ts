/** Whether the cluster's signing keys can be had, and are those that workers' tokens are signed with. */

import { verifySignature } from '../authn/signature.ts'
import type { Clock } from '../lib/clock.ts'
import type { Config } from '../config/schema.ts'
import type { KubeClient } from '../kube/client.ts'
import { Jwks } from '../kube/jwks.ts'
import { mendOf, reasonOf } from './explain.ts'
import { fail, ok, type Finding } from './finding.ts'
import type { OwnToken } from './own-token.ts'

type Asking = {
  readonly client: KubeClient
  readonly config: Config
  readonly clock: Clock
  readonly deadlineMs: number
  readonly token: string
  readonly ownToken: OwnToken | undefined
}

export async function examineKeys(asking: Asking): Promise<readonly Finding[]> {
  const { client, config, clock, deadlineMs, token, ownToken } = asking
  let fault: unknown
  const jwks = new Jwks({
    client,
    clock,
    cooldownMs: 0,
    refreshMs: Infinity,
    staleAfterMs: Infinity,
    deadlineMs,
    onFetched: () => {},
    onFailed: (error) => (fault = error),
  })
  await jwks.refresh()
  const { issuer } = jwks
  if (issuer === undefined) {
    const refusal =
      'Bind the ClusterRole system:service-account-issuer-discovery to our ServiceAccount.'
    return [fail('signing-keys', reasonOf(fault), mendOf(fault, refusal))]
  }
  const { issuers = [issuer] } = config.kubernetes
  if (!issuers.includes(issuer)) {
    const what = `the cluster issues tokens as ${issuer}, which kubernetes.issuers does not name`
    return [fail('signing-keys', what, 'Name it there, or leave kubernetes.issuers out.')]
  }
  // Our own token is signed as those of the workers are.
  if (ownToken?.issuer === issuer) {
    const verdict = await verifySignature(token, jwks)
    if (!verdict.ok) {
      const what = `our own token is not signed with any of them (${verdict.code})`
      const mend = 'See that discovery and tokens are of the same cluster: kubernetes.apiServer.'
      return [fail('signing-keys', what, mend)]
    }
  }
  return [ok('signing-keys', `fetched; tokens are issued as ${issuer}`)]
}
