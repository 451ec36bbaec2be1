/** Whether the configured issuers can be the cluster's: they are compared letter by letter. */

const withoutSlash = (issuer: string): string => issuer.replace(/\/$/, '')

/**
 * Why the tokens of `issuer` are refused although it is the cluster's own, in words. Some clusters,
 * such as AKS, end their issuer in a slash.
 */
export function findIssuerObjection(
  issuer: string | undefined,
  listed: readonly string[] | undefined,
): string | undefined {
  if (issuer === undefined || listed === undefined || listed.includes(issuer)) return undefined
  const near = listed.find((other) => withoutSlash(other) === withoutSlash(issuer))
  const hint = near === undefined ? '' : `: ${near} differs in the slash at its end`
  return `the cluster issues tokens as ${issuer}, which is not in kubernetes.issuers${hint}`
}
