/** What must be true when everybody has left: the books balance, nothing is left, nothing was given away. */

type Scrape = ReadonlyMap<string, number>

const DESCRIPTORS_LEFT_MAX = 8
/** What must be 0 without a worker. */
const AT_REST = [
  'sessions_active',
  'connected_workers',
  'streams',
  'pending_sockets',
  'uncaught_peer_errors_total',
]

/** All series of one name. */
export const sumOf = (metrics: Scrape, name: string): number =>
  [...metrics]
    .filter(([series]) => series === name || series.startsWith(`${name}{`))
    .reduce((total, [, value]) => total + value, 0)

/** The audit's counts, and the lines that it lost, are what the metrics say. */
export const judgeBooks = (metrics: Scrape, audit: readonly string[]): readonly string[] => {
  const audited = { admitted: 0, refused: 0, closed: 0 }
  for (const line of audit) {
    const { event, count = 1 } = JSON.parse(line) as { event?: string; count?: number }
    if (event === 'k8s-auth-success') audited.admitted += count
    else if (event === 'k8s-session-closed') audited.closed += count
    else audited.refused += count
  }
  const counted = {
    admitted: metrics.get('auth_attempts_total{result="success"}') ?? 0,
    refused:
      (metrics.get('auth_attempts_total{result="failed"}') ?? 0) +
      sumOf(metrics, 'upgrades_refused_total'),
    closed: sumOf(metrics, 'stream_closes_total'),
  }
  const dropped = metrics.get('log_lines_dropped_total{output="audit"}') ?? 0
  const missing = (['admitted', 'refused', 'closed'] as const).map(
    (what) => counted[what] - audited[what],
  )
  const all = missing.reduce((total, each) => total + each, 0)
  // A dropped line may have stood for many refusals.
  const isExplained =
    missing.every((each) => each >= 0) && (dropped === 0 ? all === 0 : all >= dropped)
  if (isExplained) return []
  return [
    `the audit has ${JSON.stringify(audited)} and lost ${dropped} lines, the metrics have ${JSON.stringify(counted)}`,
  ]
}

export const judgeRest = (metrics: Scrape, moreDescriptors: number): readonly string[] => {
  const left = AT_REST.map((name) => [name, sumOf(metrics, name)] as const)
    .filter(([, value]) => value !== 0)
    .map(([name, value]) => `${name} is ${value} when everybody has left`)
  if (moreDescriptors <= DESCRIPTORS_LEFT_MAX) return left
  return [...left, `${moreDescriptors} more descriptors than at the start`]
}

/** What a process has written, line by line. */
type Outputs = {
  readonly log: () => readonly string[]
  readonly audit: () => readonly string[]
}

/** Neither log nor audit has a part of a token that would let somebody in, and none speaks of a bug. */
export const judgeOutputs = (outputs: Outputs, tokens: readonly string[]): readonly string[] => {
  const signatures = tokens.map((token) => token.split('.')[2] ?? token)
  const lines = [...outputs.log(), ...outputs.audit()]
  return lines.flatMap((line) => [
    ...(signatures.some((secret) => line.includes(secret)) ? ['a token was written down'] : []),
    ...(line.includes('"level":"fatal"') ? [`a bug: ${line.slice(0, 300)}`] : []),
  ])
}
