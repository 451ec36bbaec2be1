/** A person sees a line for each test file, every failure in full, and the totals. */

import { once } from 'node:events'
import { test } from 'tap'
import { FileReporter } from '../tools/file-reporter.ts'

const TAP = `TAP version 14
# Subtest: test/unit/a.test.ts
    # Subtest: it holds
        ok 1 - yes
        1..1
    ok 1 - it holds # time=3ms
    1..1
ok 1 - test/unit/a.test.ts # time=1234.5ms
# Subtest: test/unit/b.test.ts
    # Subtest: it breaks
        ok 1 - yes
        not ok 2 - the number
          ---
          diff: |
            -1
            +2
          ...
        ok 3 - yes again
        1..3
    not ok 1 - it breaks # time=2ms
      ---
      at:
        lineNumber: 7
      ...
    1..1
    # failed 1 test
not ok 2 - test/unit/b.test.ts # time=99ms
  ---
  exitCode: 1
  ...
1..2
# { total: 4, pass: 3, fail: 1 }
# time=1400ms
`

const read = async (chunks: readonly string[]): Promise<string> => {
  const reporter = new FileReporter()
  const out: Buffer[] = []
  reporter.on('data', (chunk: Buffer) => out.push(chunk))
  for (const chunk of chunks) reporter.write(chunk)
  reporter.end()
  await once(reporter, 'end')
  return Buffer.concat(out).toString()
}

test('a file that passes is one line, and of one that fails every failure is shown', async (t) => {
  const text = await read([TAP])
  t.equal(
    text,
    `PASS  test/unit/a.test.ts  1.2 s
FAIL  test/unit/b.test.ts  0.1 s
        not ok 2 - the number
          ---
          diff: |
            -1
            +2
          ...
    not ok 1 - it breaks # time=2ms
      ---
      at:
        lineNumber: 7
      ...
  ---
  exitCode: 1
  ...
# { total: 4, pass: 3, fail: 1 }
# time=1400ms
`,
  )
  t.equal(await read(TAP.split('')), text, 'wherever the chunks are cut')
})
