/** The subprotocol that carries a bearer token, as kubectl and browsers send it to Kubernetes. */

/** What precedes the token, which is in base64url (k8s.io/apiserver, websocket authentication). */
export const BEARER_SUBPROTOCOL = 'base64url.bearer.authorization.k8s.io.'

/** Whether an offered subprotocol is one, in any letter case: none of them may reach the gateway. */
export const isBearerSubprotocol = (offer: string): boolean =>
  offer.toLowerCase().startsWith(BEARER_SUBPROTOCOL)
