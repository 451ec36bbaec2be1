/** Commands that end by themselves deliver their output, or report that they could not. */

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { jsonSchema } from '@openclaw-k8s/auth-sidecar/config/schema.ts'
import { startSidecarProcess } from '../kit/sidecar-process.ts'
import { openFull, openPipe } from '../kit/pipes.ts'

const MAIN = fileURLToPath(import.meta.resolve('@openclaw-k8s/auth-sidecar/main.ts'))
const SCHEMA = `${JSON.stringify(jsonSchema(), null, 2)}\n`

test('a short command whose reader leaves early ends quietly', async (t) => {
  const schema = startSidecarProcess(['schema'])
  schema.abandonStdout()
  const help = startSidecarProcess(['--help'])
  help.abandonStdout()
  for (const { exited, stderr } of [schema, help]) {
    t.strictSame(await exited, { code: 0, signal: null })
    t.equal(stderr.text, '')
  }
})

test('a short command that cannot write all its output says so and exits 74', async (t) => {
  const { exited, stderr } = startSidecarProcess(['schema'], { stdout: openFull(t) })
  t.strictSame(await exited, { code: 74, signal: null })
  t.match(stderr.text, /^Standard output could not be written: .*ENOSPC/)

  const file = join(t.testdir(), 'schema')
  // No file can grow beyond 4096 bytes, as on a full disk.
  const script = 'ulimit -f 4; exec "$0" "$1" schema > "$2"'
  const { status } = spawnSync('bash', ['-c', script, process.execPath, MAIN, file])
  t.equal(status, 74)
  t.equal(readFileSync(file, 'utf8'), SCHEMA.slice(0, 4096))
})

test('a short command waits for a late reader', async (t) => {
  const pipe = openPipe(t)
  pipe.fill()
  const { exited } = startSidecarProcess(['schema'], { stdout: pipe.writer })
  await pipe.startReading().until((text) => text.trimStart() === SCHEMA)
  t.strictSame(await exited, { code: 0, signal: null })
})
