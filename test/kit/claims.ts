/** The claims of a worker whose pod and token outlive the test. */

import type { Claims } from '@openclaw-k8s/auth-sidecar/identity.ts'

export const CLAIMS: Claims = {
  issuer: 'issuer',
  audiences: ['openclaw-gateway'],
  issuedAt: 0,
  notBefore: undefined,
  expiresAt: Number.MAX_SAFE_INTEGER,
  tokenId: 'jti',
  namespace: 'openclaw',
  serviceAccount: 'worker',
  serviceAccountUid: 'account-uid',
  podName: 'worker-a',
  podUid: 'pod-uid',
  nodeName: undefined,
}
