/** Handshakes: CPU time of the proxy for connect, upgrade and close, by what it has to find out. */

import type { CredentialKind } from '../api-server.ts'
import {
  cpuMsOf,
  isWanted,
  measureCase,
  takingPart,
  withContenders,
  type Bench,
} from '../contenders.ts'
import type { Contender } from '../contenders.ts'

const CONCURRENCY = 32
/** Handshakes of a round for each millisecond of its window. */
const COUNT_PER_MS = 3
/** Until the code of a handshake is compiled as well as it will be. */
const WARM_UP = 6000
/** More pods than the sidecar remembers to have asked for lately. */
const HERD = 2000
const WARM_UP_QUICK = 600

type Kind = {
  readonly name: string
  readonly credentials: CredentialKind
  /** What every handshake has to be answered with. */
  readonly status: '101' | '401'
  /** Whether tokens repeat; new ones cannot be used twice to warm up. */
  readonly isKnown?: true
  /** Whether TLS sessions are resumed. */
  readonly resumesTls?: true
}

const CACHED: Kind = {
  name: 'admitted, verdict cached',
  credentials: 'repeated',
  status: '101',
  isKnown: true,
}
const RESUMED: Kind = { ...CACHED, name: `${CACHED.name}, TLS session resumed`, resumesTls: true }
/** The first ones find no session yet. */
const RESUMED_SHARE_MIN = 0.9
const KINDS: readonly Kind[] = [
  CACHED,
  {
    name: 'admitted, pod asked for',
    credentials: 'herd',
    status: '101',
    isKnown: true,
  },
  { name: 'admitted, new token', credentials: 'distinct', status: '101' },
  { name: 'refused, not a JWT', credentials: 'not a JWT', status: '401' },
  { name: 'refused, bad signature', credentials: 'bad signature', status: '401' },
]

export const measureHandshakes = async (bench: Bench): Promise<void> => {
  await measureOver(bench, false, KINDS)
  await measureOver(bench, true, [CACHED, RESUMED])
}

const measureOver = async (bench: Bench, isTls: boolean, kinds: readonly Kind[]): Promise<void> => {
  const count = bench.options.windowMs * COUNT_PER_MS
  const warmUp = bench.options.isQuick ? WARM_UP_QUICK : WARM_UP
  const wanted: (Kind & { readonly file: string })[] = []
  for (const kind of kinds.filter(({ name }) => isWanted(bench, name))) {
    // One batch more than there are rounds, to warm up with.
    const tokens = kind.isKnown === true ? HERD : count * (bench.options.rounds + 1)
    wanted.push({ ...kind, file: await bench.cluster.credentials(kind.credentials, tokens) })
  }
  /** Each pod of a herd has to be known, and a new token cannot be shown twice. */
  const warmUpOf = ({
    credentials,
    isKnown,
  }: Pick<Kind, 'credentials'> & { readonly isKnown: true | undefined }): number => {
    if (isKnown !== true) return count
    return credentials === 'herd' ? Math.max(HERD, warmUp) : warmUp
  }
  const table = `handshakes, ${isTls ? 'TLS' : 'plain'}`
  const unit = 'CPU ms per connect, upgrade and close'
  await withContenders(bench, { section: 'handshakes', isTls }, async (contenders) => {
    const asking = contenders.filter((contender) => asks(bench, contender))
    for (const { name, file, status, credentials, isKnown, resumesTls = false } of wanted) {
      const run = async ({ target }: Contender, batch: number, handshakes = count) => {
        const { statuses = {}, resumed = 0 } = await bench.load.run({
          do: 'handshakes',
          from: batch * count,
          count: handshakes,
          concurrency: CONCURRENCY,
          resumesTls,
          ...target(file),
        })
        if (statuses[status] !== handshakes) throw new Error(`answers: ${JSON.stringify(statuses)}`)
        if (resumesTls && resumed < handshakes * RESUMED_SHARE_MIN) {
          throw new Error(`only ${resumed} of ${handshakes} TLS sessions were resumed`)
        }
      }
      await measureCase(
        bench,
        credentials === 'repeated' ? contenders : asking,
        { section: 'handshakes', table, name, unit },
        {
          prepare: (contender) => run(contender, 0, warmUpOf({ credentials, isKnown })),
          measure: async (contender, round) =>
            (await cpuMsOf(contender, () => run(contender, round + 1))) / count,
        },
      )
    }
  })
}

const asks = (bench: Bench, contender: Contender): boolean =>
  takingPart(bench, 'handshakes').some(
    ({ name, asksNobody }) => name === contender.name && asksNobody !== true,
  )
