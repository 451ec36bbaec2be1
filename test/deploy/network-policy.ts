/** What NetworkPolicies mean, computed from the objects: the same rules that a network plug-in follows. */

import { BlockList, isIPv6 } from 'node:net'
import { isMatch, type LabelSelector } from './label-selector.ts'
import { ofKind, type KubeObject, type Labels } from './objects.ts'

/** One end of a connection: a pod, or a mere address outside of the cluster. */
export type End = {
  readonly ip?: string
  readonly namespace?: { readonly name: string; readonly labels: Labels }
  readonly labels?: Labels
  /** Names of its ports. */
  readonly ports?: Readonly<Record<string, number>>
}

type Peer = {
  readonly podSelector?: LabelSelector
  readonly namespaceSelector?: LabelSelector
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] }
}
type Port = {
  readonly protocol?: string
  readonly port?: number | string
  readonly endPort?: number
}
type Rule = {
  readonly from?: readonly Peer[]
  readonly to?: readonly Peer[]
  readonly ports?: readonly Port[]
}
type Policy = {
  readonly podSelector: LabelSelector
  readonly policyTypes?: readonly string[]
  readonly ingress?: readonly Rule[]
  readonly egress?: readonly Rule[]
}
type Placed = { readonly namespace: string | undefined; readonly policy: Policy }

export type Connection = {
  readonly from: End
  readonly to: End
  readonly port: number
  readonly protocol?: 'TCP' | 'UDP'
}

/** Whether both ends' policies let it pass. */
export const isAllowed = (objects: readonly KubeObject[], connection: Connection): boolean => {
  const policies = ofKind(objects, 'NetworkPolicy').map(({ metadata, spec }) => ({
    namespace: metadata.namespace,
    policy: spec as unknown as Policy,
  }))
  return mayLeave(policies, connection) && mayEnter(policies, connection)
}

const mayEnter = (policies: readonly Placed[], { from, to, port, protocol }: Connection) =>
  isPermitted(
    selecting(policies, to, 'Ingress').map(({ namespace, policy }) =>
      (policy.ingress ?? []).some(
        (rule) =>
          hasPeer(rule.from, from, namespace) && hasPort(rule.ports, to, port, protocol ?? 'TCP'),
      ),
    ),
  )

const mayLeave = (policies: readonly Placed[], { from, to, port, protocol }: Connection) =>
  isPermitted(
    selecting(policies, from, 'Egress').map(({ namespace, policy }) =>
      (policy.egress ?? []).some(
        (rule) =>
          hasPeer(rule.to, to, namespace) && hasPort(rule.ports, to, port, protocol ?? 'TCP'),
      ),
    ),
  )

/** A pod that no policy selects is open; otherwise one of its policies must allow the connection. */
const isPermitted = (verdicts: readonly boolean[]): boolean =>
  verdicts.length === 0 || verdicts.includes(true)

const selecting = (policies: readonly Placed[], end: End, type: 'Ingress' | 'Egress') =>
  policies.filter(
    ({ namespace, policy }) =>
      end.labels !== undefined &&
      end.namespace?.name === namespace &&
      isMatch(policy.podSelector, end.labels) &&
      typesOf(policy).includes(type),
  )

const typesOf = ({ policyTypes, egress }: Policy): readonly string[] =>
  policyTypes ?? ['Ingress', ...(egress === undefined ? [] : ['Egress'])]

/** No list, or an empty one, means everybody. */
const hasPeer = (
  peers: readonly Peer[] | undefined,
  end: End,
  policyNamespace: string | undefined,
): boolean =>
  peers === undefined ||
  peers.length === 0 ||
  peers.some((peer) => {
    if (peer.ipBlock !== undefined) return end.ip !== undefined && isWithin(peer.ipBlock, end.ip)
    if (end.labels === undefined || end.namespace === undefined) return false
    // A pod selector alone stays within the policy's own namespace.
    const isThere =
      peer.namespaceSelector === undefined
        ? end.namespace.name === policyNamespace
        : isMatch(peer.namespaceSelector, end.namespace.labels)
    return isThere && isMatch(peer.podSelector ?? {}, end.labels)
  })

const isWithin = ({ cidr, except = [] }: NonNullable<Peer['ipBlock']>, ip: string): boolean => {
  const family = isIPv6(ip) ? 'ipv6' : 'ipv4'
  const holds = (block: string): boolean => {
    const [net = '', prefix = ''] = block.split('/')
    if (isIPv6(net) !== isIPv6(ip)) return false
    const list = new BlockList()
    list.addSubnet(net, Number(prefix), family)
    return list.check(ip, family)
  }
  return holds(cidr) && !except.some(holds)
}

const hasPort = (
  ports: readonly Port[] | undefined,
  to: End,
  port: number,
  protocol: string,
): boolean =>
  ports === undefined ||
  ports.length === 0 ||
  ports.some((each) => {
    if ((each.protocol ?? 'TCP') !== protocol) return false
    if (each.port === undefined) return true
    if (typeof each.port === 'string') return to.ports?.[each.port] === port
    return port >= each.port && port <= (each.endPort ?? each.port)
  })
