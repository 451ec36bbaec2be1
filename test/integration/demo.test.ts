/** The demo as a newcomer runs it, from beginning to end. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, rm } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { waitUntil } from '../kit/wait.ts'

const MAIN = fileURLToPath(new URL('../demo/main.ts', import.meta.url))
const CONNECT = fileURLToPath(new URL('../demo/connect.ts', import.meta.url))
const JWT = /eyJ[\w-]+\.[\w-]+\.[\w-]+/

const startDemo = (t: Test, args: readonly string[]) => {
  const child = spawn(process.execPath, [MAIN, '--port', '0', '--admin-port', '0', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '' },
  })
  t.teardown(() => child.kill('SIGKILL'))
  let text = ''
  const { promise: invited, resolve } = Promise.withResolvers<void>()
  const collect = (chunk: Buffer) => {
    text += chunk.toString()
    if (text.includes('stays up until Ctrl-C')) resolve()
  }
  child.stdout.on('data', collect)
  child.stderr.on('data', collect)
  const ended = once(child, 'close').then(([code]) => {
    resolve()
    return code as number | null
  })
  return { child, invited, ended, text: () => text }
}

/** The sidecar's process and the demo's directory, as the demo prints them. */
const tracesOf = (text: string) => ({
  pid: Number(/process (\d+)/.exec(text)?.[1]),
  directory: /auth-sidecar-demo-\w+/.exec(text)?.[0] ?? 'none',
  adminUrl: /admin port +(http:\S+)/.exec(text)?.[1] ?? 'none',
})

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

test('the demo with --once keeps every promise and exits 0', async (t) => {
  const { ended, text } = startDemo(t, ['--once'])
  t.equal(await ended, 0, text())
  const told = text()
  const promised = [
    /✓ worker-a connects with its pod's token +101 admitted/,
    /✓ it says hello, and the gateway echoes +"hello from worker-a"/,
    /X-OpenClaw-K8s-Pod-Name +worker-a/,
    /X-Forwarded-For +127\.0\.0\.11/,
    /X-OpenClaw-K8s-Assertion +eyJ\S{1,20}… \(\d+ characters\)/,
    /✓ worker-b sends connect\.request\s+\{"type":"connect\.response","success":true\}/,
    /✓ a forged signature +401 signature_invalid/,
    /✓ a token for the API server +401 audience_mismatch/,
    /✓ an expired token +401 token_expired/,
    /✓ a ServiceAccount that is not on the list +403 identity_not_allowed/,
    /✓ TokenReviews the API server was asked for +0/,
    /✓ X_OpenClaw_K8s_Pod_Name: mallory +worker-c/,
    /✓ X-Forwarded-For: 10\.6\.6\.6 +127\.0\.0\.13/,
    /✓ worker-a's token from 127\.0\.0\.13 +403 source_address_mismatch/,
    /✓ worker-b's stream is closed +1008 pod_deleted/,
    /✓ worker-b comes again with its token +403 pod_deleted/,
    /"log":"audit"[^}]*"event":"k8s-auth-success"/,
    /openclaw_k8s_auth_attempts_total\{result="success"\} 3/,
    /http:\/\/127\.0\.0\.1:\d+\/metrics/,
    /Without\s+Authorization\s+it is 101,[^]*Nothing reaches the gateway before\s+that\s+token is proven/,
    /npm run demo:openclaw/,
    /What you have seen\n\n +✓ A worker shows the token[^]*✓ A stolen token[^]*\n\n/,
    /Everything went as told\./,
  ]
  for (const line of promised) t.match(told, line)
  t.notMatch(told, '✗')
  t.notMatch(told, JWT, 'no token and no assertion is shown whole')
  t.notMatch(told, '\u001b', 'no color where there is no terminal')
  const wide = told.split('\n').filter((line) => line.length > 80)
  t.strictSame(wide, [], 'it fits 80 columns')
})

/** Runs the command that the demo prints, and says one line to the gateway. */
const connectAsTold = async (text: string) => {
  const [, args = ''] = /connect\.ts (.*?--token-file \S+)/s.exec(text) ?? []
  const words = args.split(/[\s\\]+/)
  const child = spawn(process.execPath, [CONNECT, ...words], {
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  child.stdin.end('good day\n')
  let said = ''
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, said }
}

test('a running demo can be connected to as it says, and Ctrl-C ends it, its sidecar and its files', async (t) => {
  const { child, invited, ended, text } = startDemo(t, [])
  await invited
  const { pid, directory } = tracesOf(text())
  t.ok(isAlive(pid), 'the sidecar stays up with the demo')
  t.ok((await readdir(tmpdir())).includes(directory))
  t.strictSame(await connectAsTold(text()), { code: 0, said: 'good day\n' })
  child.kill('SIGINT')
  t.equal(await ended, 0, text())
  t.notOk(isAlive(pid), 'no process is left behind')
  t.notOk((await readdir(tmpdir())).includes(directory), 'no token file is left behind')
})

test('a demo that is killed takes its sidecar along', async (t) => {
  const { child, invited, ended, text } = startDemo(t, [])
  await invited
  const { directory, adminUrl } = tracesOf(text())
  t.teardown(() => rm(join(tmpdir(), directory), { recursive: true }))
  t.ok(await isLive(adminUrl))
  child.kill('SIGKILL')
  await ended
  // Nothing announces the end of a process that is not our child; if it lives on, the wait gives up.
  await waitUntil(async () => !(await isLive(adminUrl)))
})

const isLive = async (adminUrl: string): Promise<boolean> =>
  fetch(`${adminUrl}/livez`).then(
    ({ ok }) => ok,
    () => false,
  )

test('the demo knows its flags', async (t) => {
  const unknown = startDemo(t, ['--nonsense'])
  t.equal(await unknown.ended, 64)
  t.match(unknown.text(), /Usage: npm run demo/)
})
