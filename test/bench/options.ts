/** The command line of `npm run bench`. */

import { parseArgs } from 'node:util'

// Handshakes come last: they leave many pods behind, which a sidecar at rest would know of.
const SECTIONS = ['echo', 'streams', 'round-trip', 'start', 'idle', 'handshakes'] as const
/** A separate run with a separate page: its peers are built from Go modules and take long to measure. */
const PEERS = 'peers'
export type SectionName = (typeof SECTIONS)[number] | typeof PEERS

export type Options = {
  readonly isQuick: boolean
  readonly sections: readonly SectionName[]
  /** Names of peers to measure; none means all. */
  readonly peers: readonly string[]
  /** Only cases whose name contains one of these; none means all. */
  readonly cases: readonly string[]
  /** Other checkouts, each with Node flags after it. */
  readonly also: readonly string[]
  readonly rounds: number
  /** Length of one measured window. */
  readonly windowMs: number
  /** Where results go; `undefined` for the place that fits what was measured. */
  readonly out: string | undefined
}

export const USAGE = `Usage: npm run bench -- [option…]

  --quick            all sections, smaller and shorter: under two minutes
  --only SECTION,…   ${SECTIONS.join(', ')}
  --only ${PEERS}       beside kube-rbac-proxy and oauth2-proxy, which no other run measures
  --peers NAME,…     sidecar, go, go-unauthenticated, nginx, nginx-64k, nginx-auth, haproxy, haproxy-64k,
                     node-relay;
                     with --only ${PEERS}: sidecar, go, kube-rbac-proxy, oauth2-proxy
  --cases TEXT       only cases whose name contains TEXT, such as '1 KiB x 64'; repeatable
  --also 'DIR [NODE-FLAG…]'
                     measure the sidecar of another checkout too, in the same rounds; repeatable
  --rounds N         rounds of each case
  --ms N             length of one measured window in milliseconds
  --out DIR          write results here; by default a run of all sections, or all of '${PEERS}',
                     writes docs/performance, any other node_modules/.cache/bench
`

export const parseOptions = (argv: readonly string[]): Options | undefined => {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string', default: '' },
      peers: { type: 'string', default: '' },
      cases: { type: 'string', multiple: true, default: [] },
      also: { type: 'string', multiple: true, default: [] },
      rounds: { type: 'string' },
      ms: { type: 'string' },
      out: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return undefined
  return {
    isQuick: values.quick,
    sections: sectionsOf(list(values.only)),
    peers: list(values.peers),
    cases: values.cases,
    also: values.also,
    rounds: positive('rounds', values.rounds ?? (values.quick ? '3' : '7')),
    windowMs: positive('ms', values.ms ?? (values.quick ? '60' : '500')),
    out: values.out,
  }
}

/** Whether this is the run beside kube-rbac-proxy and oauth2-proxy. */
export const isOfPeers = ({ sections }: Pick<Options, 'sections'>): boolean =>
  sections.includes(PEERS)

/** A run that leaves nothing out and adds nothing: only such a run can replace the published figures. */
export const isWhole = ({ isQuick, sections, peers, cases, also }: Options): boolean =>
  !isQuick &&
  (isOfPeers({ sections }) || sections.length === SECTIONS.length) &&
  peers.length === 0 &&
  cases.length === 0 &&
  also.length === 0

const list = (text: string): readonly string[] => text.split(',').filter(Boolean)

const sectionsOf = (names: readonly string[]): readonly SectionName[] => {
  if (names.includes(PEERS)) {
    if (names.length > 1) throw new Error(`--only ${PEERS} takes no other section beside it`)
    return [PEERS]
  }
  const unknown = names.find((name) => !SECTIONS.some((section) => section === name))
  if (unknown !== undefined) throw new Error(`there is no section ${unknown}`)
  return names.length === 0 ? SECTIONS : SECTIONS.filter((section) => names.includes(section))
}

const positive = (name: string, text: string): number => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} wants a whole number`)
  return value
}
