/** Lines leave whole and in order, wait for a bounded time, and are counted when they are lost. */

import { test } from 'tap'
import { LineOutput } from '@openclaw-k8s/auth-sidecar/observe/line-output.ts'
import { FakeClock } from '../kit/fake-clock.ts'

type Taking = number | 'all' | 'EAGAIN' | 'EPIPE' | 'ENOSPC'

/** An output that accepts as much of each write as the test says, and what it received. */
const setUp = ({ bytesMax = 1_000_000, delayMs = 0 } = {}) => {
  const clock = new FakeClock()
  const writes: string[] = []
  const told: string[] = []
  const state: { taking: Taking } = { taking: 'all' }
  let attempts = 0
  const output: LineOutput = new LineOutput({
    clock,
    bytesMax,
    delayMs,
    write(bytes) {
      attempts += 1
      const { taking } = state
      if (typeof taking === 'string' && taking !== 'all') {
        throw Object.assign(new Error(taking), { code: taking })
      }
      const taken = taking === 'all' ? bytes : bytes.subarray(0, taking)
      // A part is taken once; then it is full.
      if (taking !== 'all') state.taking = 'EAGAIN'
      writes.push(Buffer.from(taken).toString())
      return taken.length
    },
    onLoss: (code) => void told.push(`losing: ${code}`),
    onRecovered: (lines) => {
      told.push(`lost ${lines}`)
      output.write(`lost ${lines}\n`)
    },
  })
  return {
    clock,
    writes,
    told,
    output,
    take: (taking: Taking) => void (state.taking = taking),
    text: () => writes.join(''),
    attempts: () => attempts,
  }
}

test('lines without a delay are written at once, one by one', (t) => {
  const { output, writes, clock } = setUp()
  output.write('a\n')
  output.write('b\n')
  t.strictSame(writes, ['a\n', 'b\n'])
  t.equal(clock.pending, 0)
  t.end()
})

test('lines with a delay are written together, after the delay or at 4096 bytes', (t) => {
  const { output, writes, clock } = setUp({ delayMs: 100 })
  output.write('a\n')
  clock.advance(99)
  output.write('b\n')
  t.strictSame(writes, [])
  clock.advance(1)
  t.strictSame(writes, ['a\nb\n'])
  const line = `${'x'.repeat(999)}\n`
  for (let n = 0; n < 4; n += 1) output.write(line)
  t.equal(writes.length, 1, '4000 bytes wait')
  output.write(line)
  t.strictSame(writes.slice(1), [line.repeat(4)], 'no write is larger than a pipe takes whole')
  clock.advance(100)
  t.equal(writes.at(-1), line)
  t.equal(clock.pending, 0)
  t.end()
})

test('a full output makes lines wait, in order, and is tried less and less often', (t) => {
  const { output, clock, take, text, told, attempts } = setUp()
  take('EAGAIN')
  for (const line of ['a\n', 'b\n', 'c\n']) output.write(line)
  t.equal(attempts(), 1, 'the timer alone tries again')
  t.equal(output.waiting, 3)
  clock.advance(60_000)
  t.ok(attempts() < 260, `${attempts()} attempts a minute`)
  take('all')
  clock.advance(250)
  t.equal(text(), 'a\nb\nc\n')
  t.strictSame(told, [], 'nothing was lost')
  t.equal(output.lost, 0)
  t.equal(clock.pending, 0)
  t.end()
})

test('lines past the bound are dropped and counted, and one line says so when all is written', (t) => {
  const { output, clock, take, text, told } = setUp({ bytesMax: 7 })
  take('EAGAIN')
  for (const line of ['a\n', 'b\n', 'c\n', 'd\n', 'e\n']) output.write(line)
  t.equal(output.lost, 2)
  t.strictSame(told, ['losing: EAGAIN'], 'reported once')
  take(2)
  clock.advance(250)
  t.strictSame(told, ['losing: EAGAIN'], 'one line came through, two wait')
  take('all')
  clock.advance(250)
  t.equal(text(), 'a\nb\nc\nlost 2\n')
  output.write('f\n')
  t.equal(text(), 'a\nb\nc\nlost 2\nf\n', 'once')
  t.equal(output.lost, 2)
  take('EAGAIN')
  for (const line of ['g\n', 'h\n', 'i\n', 'j\n']) output.write(line)
  t.equal(output.lost, 3)
  t.equal(told.at(-1), 'losing: EAGAIN', 'the next time it is reported again')
  t.end()
})

for (const code of ['EPIPE', 'ENOSPC'] as const) {
  test(`${code} drops what waits, counts it, and the next line tries again`, (t) => {
    const { output, clock, take, text, told } = setUp({ delayMs: 100 })
    take(code)
    output.write('a\n')
    output.write('b\n')
    clock.advance(100)
    t.equal(output.lost, 2)
    t.equal(output.waiting, 0)
    t.equal(clock.pending, 0, 'nothing is tried in vain')
    output.write('c\n')
    clock.advance(100)
    t.equal(output.lost, 3)
    t.strictSame(told, [`losing: ${code}`])
    take('all')
    output.flush()
    t.strictSame(told, [`losing: ${code}`], 'nothing was written: nobody knows that it works')
    output.write('d\n')
    clock.advance(100)
    t.strictSame(told, [`losing: ${code}`, 'lost 3'])
    clock.advance(100)
    t.equal(text(), 'd\nlost 3\n')
    t.end()
  })
}

test('a partly written line is finished, whatever happens to the lines after it', (t) => {
  const { output, clock, take, text } = setUp()
  take(3)
  output.write('abcdef\n')
  output.write('lost\n')
  t.equal(text(), 'abc')
  take('ENOSPC')
  clock.advance(1000)
  t.equal(output.lost, 1, 'the one that had not begun')
  output.write('lost as well\n')
  clock.advance(1000)
  t.equal(output.lost, 2)
  take('all')
  clock.advance(1000)
  output.write('next\n')
  t.equal(text(), 'abcdef\nlost 2\nnext\n')
  t.end()
})

test('a part that ends with a line is not the beginning of one', (t) => {
  const { output, clock, take, text } = setUp({ delayMs: 100 })
  take(2)
  output.write('a\n')
  output.write('b\n')
  clock.advance(100)
  t.equal(text(), 'a\n')
  take('EPIPE')
  clock.advance(1000)
  t.equal(output.lost, 1)
  t.equal(output.waiting, 0)
  t.end()
})

test('characters of several bytes survive a write that stops inside one', (t) => {
  const { output, clock, take, writes } = setUp()
  take(1)
  output.write('é\n')
  t.equal(output.waiting, 1)
  take('all')
  clock.advance(10)
  t.equal(writes.at(-1)?.length, 2, 'the second half and the newline')
  t.equal(output.waiting, 0)
  t.end()
})

test('finish waits until all is written, but not beyond its limit', async (t) => {
  const { output, clock, take, text } = setUp()
  await output.finish(1000)
  take('EAGAIN')
  output.write('a\n')
  const written = output.finish(1000)
  take('all')
  await clock.advanceAsync(250)
  await written
  t.equal(text(), 'a\n')
  take('EAGAIN')
  output.write('b\n')
  const given = output.finish(1000)
  await clock.advanceAsync(1000)
  await given
  t.equal(output.waiting, 1)
})

test('finish waits for nothing when the output is broken', async (t) => {
  const { output, take } = setUp({ delayMs: 100 })
  take('EPIPE')
  output.write('a\n')
  await output.finish(1000)
  t.equal(output.lost, 1)
})

test('an output that accepts nothing and reports nothing counts as full', (t) => {
  const { output, clock, take, text, attempts } = setUp()
  take(0)
  output.write('a\n')
  t.equal(attempts(), 1)
  take('all')
  clock.advance(10)
  t.equal(text(), 'a\n')
  t.end()
})
