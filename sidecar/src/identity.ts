/** What a token claims and what the cluster has proven: the terms every room shares. */

/**
 * The claims of a pod-bound ServiceAccount token, as read from it. Times are seconds since the
 * epoch.
 */
export type Claims = {
  readonly issuer: string
  readonly audiences: readonly string[]
  readonly issuedAt: number
  readonly notBefore: number | undefined
  readonly expiresAt: number
  /** The token's `jti`, where the cluster issues one (Kubernetes 1.30 and later). */
  readonly tokenId: string | undefined
  readonly namespace: string
  readonly serviceAccount: string
  readonly serviceAccountUid: string
  readonly podName: string
  readonly podUid: string
  readonly nodeName: string | undefined
}

/** Who a worker is: a TokenReview that named exactly this pod confirmed every field. */
export type Identity = {
  readonly namespace: string
  readonly serviceAccount: string
  readonly podName: string
  readonly podUid: string
  readonly nodeName: string | undefined
  /** The value of `authentication.kubernetes.io/credential-id` without its `JTI=` prefix. */
  readonly credentialId: string | undefined
  /** The token's `exp`, in seconds since the epoch. */
  readonly expiresAt: number
}

/** A ServiceAccount by name. */
export type Account = Pick<Identity, 'namespace' | 'serviceAccount'>

/** Its name among all namespaces. */
export const accountNameOf = ({ namespace, serviceAccount }: Account): string =>
  `${namespace}/${serviceAccount}`

/** Whom an unverified token names; one that is bound to no pod names only its ServiceAccount. */
export type Claimed = Account & { readonly podName?: string; readonly podUid?: string }

/** Its user name in the cluster (Kubernetes, "Authenticating": service account tokens). */
export const userNameOf = ({ namespace, serviceAccount }: Account): string =>
  `system:serviceaccount:${namespace}:${serviceAccount}`

/** The identity a TokenReview would confirm for these claims. */
export const identityOf = (claims: Claims): Identity => ({
  namespace: claims.namespace,
  serviceAccount: claims.serviceAccount,
  podName: claims.podName,
  podUid: claims.podUid,
  nodeName: claims.nodeName,
  credentialId: claims.tokenId,
  expiresAt: claims.expiresAt,
})
