/** The status as text for a terminal: tables that fit, and names that move no cursor. */

import type { Status } from '../edge/status.ts'
import { escapeText } from './escape.ts'
import {
  countOf,
  describeKeys,
  describeWatch,
  secondsBetween,
  shortAge,
  shortCount,
} from '../edge/page/words.js'

/** The least width, in columns; a wider terminal shows more of long names. */
export const COLUMNS_MIN = 80

type Column = {
  readonly head: string
  readonly isNumber?: true
  /** It loses characters when there is no room. */
  readonly isFlexible?: true
}

type Row = readonly string[]

const GAP = '  '
const FLEXIBLE_MIN = 8
const ELLIPSIS = '...'

/** Lines without line breaks, none longer than `columns`. */
export function describeStatus(status: Status, columns = COLUMNS_MIN): readonly string[] {
  const { certificates, refusals, streams } = status
  return [
    ...describeState(status, columns),
    '',
    ...describeStreams(streams, status.at, columns),
    '',
    ...describeRefusals(refusals, status.at, columns),
    '',
    ...describeCluster(status, columns),
    ...certificates.flatMap((each) => describeCertificate(each, status.at, columns)),
  ]
}

function describeState(status: Status, columns: number): readonly string[] {
  const { at, checks, isReady, startedAt, version } = status
  const up = shortAge(secondsBetween(startedAt, at))
  const lines = checks.flatMap(({ name, objection, warnings }) => {
    if (objection !== undefined) return [`fail  ${name}: ${objection}`]
    return warnings.map((warning) => `warn  ${name}: ${warning}`)
  })
  const passed = checks.filter(
    ({ objection, warnings }) => objection === undefined && warnings.length === 0,
  )
  const names = passed.map(({ name }) => name).join(', ')
  return [
    `${isReady ? 'READY' : 'NOT READY'}  auth-sidecar ${version}, up ${up}, at ${toSecond(at)}`,
    ...lines.toSorted(),
    ...(passed.length === 0 ? [] : [`ok    ${names}`]),
  ].flatMap((line) => wrap(line, columns, 6))
}

const STREAM_COLUMNS: readonly Column[] = [
  { head: 'POD', isFlexible: true },
  { head: 'ACCOUNT', isFlexible: true },
  { head: 'NODE', isFlexible: true },
  { head: 'MSGS', isNumber: true },
  { head: 'BYTES', isNumber: true },
  { head: 'FOR', isNumber: true },
]

function describeStreams(
  { open, pods, listed }: Status['streams'],
  at: string,
  columns: number,
): readonly string[] {
  if (open === 0) return ['STREAMS  none: no worker is connected']
  const rest = pods - listed.length
  const rows = listed.map((row) => [
    `${row.namespace}/${row.podName}${row.hosted === 0 ? '' : ` +${row.hosted}`}`,
    row.serviceAccount,
    row.nodeName ?? '',
    `${shortCount(row.messagesUp)}/${shortCount(row.messagesDown)}`,
    `${shortCount(row.bytesUp)}/${shortCount(row.bytesDown)}`,
    shortAge(secondsBetween(row.since, at)),
  ])
  const isHosting = listed.some(({ hosted }) => hosted > 0)
  return [
    `STREAMS  ${open} open, of ${countOf(pods, 'pod')}; up/down`,
    ...layOut(STREAM_COLUMNS, rows, columns),
    ...(rest === 0 ? [] : [`and ${countOf(rest, 'pod')} more, which came earlier`]),
    ...(isHosting ? ['+2: hosts 2 more, for sessions'] : []),
  ]
}

const REFUSAL_COLUMNS: readonly Column[] = [
  { head: 'LAST', isNumber: true },
  { head: 'TIMES', isNumber: true },
  { head: 'CODE' },
  { head: 'POD', isFlexible: true },
  { head: 'ADDRESS', isFlexible: true },
]

function describeRefusals(
  refusals: Status['refusals'],
  at: string,
  columns: number,
): readonly string[] {
  if (refusals.length === 0) return ['REFUSED  nobody in the last hour']
  const rows = refusals.map((refusal) => [
    shortAge(secondsBetween(refusal.lastAt, at)),
    shortCount(refusal.count),
    refusal.code,
    nameOf(refusal),
    refusal.address,
  ])
  const hasUnproven = rows.some(([, , , name = '']) => name.startsWith('?'))
  return [
    'REFUSED  in the last hour',
    ...layOut(REFUSAL_COLUMNS, rows, columns),
    ...(hasUnproven ? ['?: a token named this pod, and its signature was not verified'] : []),
  ]
}

function nameOf({ pod, isOfManyPods, isSigned }: Status['refusals'][number]): string {
  if (isOfManyPods) return '?many other names'
  if (pod === undefined) return '-'
  const { namespace, podName, serviceAccount } = pod
  const name =
    podName === undefined ? `account ${namespace}/${serviceAccount}` : `${namespace}/${podName}`
  return isSigned ? name : `?${name}`
}

function describeCluster({ keys, watch }: Status, columns: number): readonly string[] {
  const covered = `${countOf(watch.pods, 'pod')} in ${countOf(watch.scopes, 'scope')}`
  return [
    `WATCH    ${covered}, ${describeWatch(watch)}`,
    ...watch.bad.map((each) => `         ${each.scope}: ${each.state}`),
    `KEYS     ${describeKeys(keys)}`,
  ].flatMap((line) => wrap(line, columns, 9))
}

function describeCertificate(
  { faults, file, isEndingSoon, notAfter }: Status['certificates'][number],
  at: string,
  columns: number,
): readonly string[] {
  const name = file === 'certificate' ? 'TLS      ' : 'CLIENTCA '
  const until = `valid until ${toSecond(notAfter)}, ${shortAge(secondsBetween(at, notAfter))} left`
  const late = isEndingSoon ? '; it should have been renewed' : ''
  const text = faults.length > 0 ? faults.join(' ') : `${until}${late}`
  return wrap(`${name}${text}`, columns, 9)
}

/** Numbers to the right; the widest names are cut in their middle until all fits. */
function layOut(
  columns: readonly Column[],
  rows: readonly Row[],
  width: number,
): readonly string[] {
  const cells = [columns.map(({ head }) => head), ...rows.map((row) => row.map(escapeText))]
  const widths = columns.map((_, at) => Math.max(...cells.map((row) => row[at]?.length ?? 0)))
  const room = width - GAP.length * (columns.length - 1)
  const flexible = [...columns.keys()].filter((at) => columns[at]?.isFlexible === true)
  for (let over = sum(widths) - room; over > 0; over -= 1) {
    const widest = flexible.reduce((one, other) =>
      (widths[other] ?? 0) > (widths[one] ?? 0) ? other : one,
    )
    widths[widest] = Math.max(FLEXIBLE_MIN, (widths[widest] ?? 0) - 1)
  }
  return cells.map((row) =>
    row
      .map((text, at) => {
        const cut = elide(text, widths[at] ?? 0)
        return columns[at]?.isNumber === true
          ? cut.padStart(widths[at] ?? 0)
          : cut.padEnd(widths[at] ?? 0)
      })
      .join(GAP)
      .trimEnd(),
  )
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0)

/** Keeps both ends, and more of the last: there a pod's name differs from its siblings. */
function elide(text: string, lengthMax: number): string {
  if (text.length <= lengthMax) return text
  const kept = lengthMax - ELLIPSIS.length
  const front = Math.floor(kept / 3)
  return `${text.slice(0, front)}${ELLIPSIS}${text.slice(text.length - (kept - front))}`
}

/** A time in ISO 8601 without its milliseconds. */
const toSecond = (time: string): string => time.replace(/\.\d+Z$/, 'Z')

/** Breaks at spaces where it can; what follows the first line is indented. */
function wrap(text: string, width: number, indent: number): readonly string[] {
  const lines: string[] = []
  let left = escapeText(text)
  while (left.length > width) {
    const space = left.lastIndexOf(' ', width)
    const at = space > indent ? space : width
    lines.push(left.slice(0, at).trimEnd())
    left = `${' '.repeat(indent)}${left.slice(at).trimStart()}`
  }
  return [...lines, left]
}
