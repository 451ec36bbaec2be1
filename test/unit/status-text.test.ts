/** The status as text fits a terminal, and no name in it moves the cursor or turns others round. */

import { test } from 'tap'
import { escapeJson, escapeText } from '@openclaw-k8s/auth-sidecar/commands/escape.ts'
import { describeStatus } from '@openclaw-k8s/auth-sidecar/commands/status-text.ts'
import { secondsBetween, shortAge, shortCount } from '@openclaw-k8s/auth-sidecar/edge/page/words.js'
import { EMPTY_STATUS, READY_STATUS, UNREADY_STATUS, withNames } from '../kit/status-sample.ts'

const ESCAPES = 'a\u001b[2Jb\u009bc\u202ed\u2066e\r\nf\u0000g\u{1f600}'

test('no line is wider than 80 columns, whatever the names are', async (t) => {
  const long = 'x'.repeat(253)
  for (const status of [
    READY_STATUS,
    UNREADY_STATUS,
    EMPTY_STATUS,
    withNames(long),
    withNames(ESCAPES),
    withNames('two words '.repeat(30)),
  ]) {
    const wide = describeStatus(status).filter((line) => line.length > 80)
    t.strictSame(wide, [])
  }
})

test('a wider terminal shows long names whole', async (t) => {
  const text = describeStatus(READY_STATUS, 132).join('\n')
  t.match(text, 'openclaw/openclaw-worker-6b9d7c54f-8kzwm +2')
  t.match(describeStatus(READY_STATUS).join('\n'), /^opencla\.\.\.\S*-8kzwm \+2/m)
})

test('nothing but printable ASCII leaves it, as text or as JSON', async (t) => {
  t.equal(
    escapeText(ESCAPES),
    'a\\u{1b}[2Jb\\u{9b}c\\u{202e}d\\u{2066}e\\u{d}\\u{a}f\\u{0}g\\u{1f600}',
  )
  const status = withNames(ESCAPES)
  for (const line of [...describeStatus(status), escapeJson(status)]) {
    t.notMatch(line, /[^\u0020-\u007e]/)
  }
  t.strictSame(JSON.parse(escapeJson(status)), status, 'the JSON means the same')
})

test('it says what keeps workers out first, and who was refused', async (t) => {
  const [first = '', ...lines] = describeStatus(UNREADY_STATUS)
  t.match(first, /^NOT READY {2}auth-sidecar 0\.1\.0, up 2d/)
  t.equal(lines[0], 'fail  gateway: nothing listens on 127.0.0.1:18789')
  const text = lines.join('\n')
  t.match(text, 'STREAMS  none: no worker is connected')
  t.match(text, /34 {2}identity_not_allowed +\?staging\S+-l9x2k +10\.244\.5\.21/)
  t.match(text, /152 {2}source_address_mismatch +openclaw\S+-9s6bj/)
  t.match(text, 'namespace research: stale')
})

test('ages and counts take at most four characters', async (t) => {
  const ages = { 0: '0s', 59.9: '59s', 60: '1m', 3599: '59m', 3600: '1h', 86_400: '1d', [-5]: '0s' }
  for (const [seconds, text] of Object.entries(ages)) t.equal(shortAge(Number(seconds)), text)
  const counts = {
    0: '0',
    999: '999',
    1000: '1.0k',
    1234: '1.2k',
    9949: '9.9k',
    9950: '10k',
    999_499: '999k',
    999_500: '1.0M',
    388_000_000: '388M',
    1e15: '1.0P',
  }
  for (const [count, text] of Object.entries(counts)) t.equal(shortCount(Number(count)), text)
  t.equal(secondsBetween('2026-01-01T00:00:00.000Z', '2026-01-01T00:01:00.500Z'), 60.5)
})

test('a scope that was never listed is named, and is not told as a watch that is behind', async (t) => {
  const bad = [{ scope: 'namespace research', state: 'unsynced' }]
  const watch = { pods: 7, staleSeconds: 0, scopes: 2, bad }
  const text = describeStatus({ ...READY_STATUS, watch }).join('\n')
  t.match(text, 'WATCH    7 pods in 2 scopes, incomplete\n         namespace research: unsynced')
  const behind = describeStatus({ ...READY_STATUS, watch: { ...watch, staleSeconds: 95 } })
  t.match(behind.join('\n'), 'WATCH    7 pods in 2 scopes, behind for 1m')
})
