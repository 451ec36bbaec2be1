/** `npm run demo`: the sidecar between a stand-in cluster and a stand-in gateway, told line by line. */

import { writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { Pod } from '../kit/kube-store.ts'
import { createNarrator, type Narrator } from './narrator.ts'
import { startServeRig, POD_ADDRESSES, RigError, type ServeRig } from '../kit/serve-rig.ts'
import { tellStory } from './story.ts'

const HELP = `Usage: npm run demo [-- options]

  --once           end after the story instead of waiting for Ctrl-C
  --port N         worker port, any free one if it is taken (default 18443)
  --admin-port N   admin port, any free one if it is taken (default 9464)
`
const STORY_MS_MAX = 60_000
const CONNECT = fileURLToPath(import.meta.resolve('./connect.ts'))
/** What a shell reports for a process ended by Ctrl-C; a complete demo exits 0. */
const INTERRUPTED = 130
const USAGE = 64

type Flags = { readonly once: boolean; readonly workers: number; readonly admin: number }

const readFlags = (): Flags | undefined => {
  try {
    const { values } = parseArgs({
      options: {
        once: { type: 'boolean', default: false },
        port: { type: 'string', default: '18443' },
        'admin-port': { type: 'string', default: '9464' },
        help: { type: 'boolean', default: false },
      },
    })
    const [workers, admin] = [Number(values.port), Number(values['admin-port'])]
    const isPort = (n: number) => Number.isInteger(n) && n >= 0 && n <= 65_535
    if (!values.help && isPort(workers) && isPort(admin)) {
      return { once: values.once, workers, admin }
    }
    process.stdout.write(HELP)
    process.exitCode = values.help ? 0 : USAGE
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${HELP}`)
    process.exitCode = USAGE
  }
  return undefined
}

const play = async (flags: Flags): Promise<number> => {
  const hasColor = process.stdout.isTTY && (process.env['NO_COLOR'] ?? '') === ''
  const narrator = createNarrator(process.stdout, hasColor)
  const interrupted = untilSignal()
  narrator.say('Starting an API server, a gateway and the sidecar …')
  const rig = await startServeRig(flags)
  try {
    const story = tellStory(rig, narrator)
    const teller = await Promise.race([story, interrupted, expiry(), rig.sidecar.exited])
    if (teller === 'interrupted') return INTERRUPTED
    if (teller === 'expired') throw new Error('the story took too long')
    if ('code' in teller) throw new Error(`the sidecar is gone:\n${rig.sidecar.stderr.text}`)
    await invite(rig, narrator, teller)
    if (!flags.once) {
      narrator.gap()
      narrator.say('Everything stays up until Ctrl-C.')
      await interrupted
      narrator.gap()
      narrator.say('The sidecar drains: its workers are told 1012 and to come back.')
    }
  } finally {
    await rig.close()
  }
  return tellEnd(narrator)
}

/** How to look around by hand. */
const invite = async (rig: ServeRig, narrator: Narrator, pod: Pod): Promise<void> => {
  const tokenFile = join(rig.directory, 'worker-a.token')
  await writeFile(tokenFile, rig.mint({ pod }), { mode: 0o600 })
  const address = POD_ADDRESSES[0]
  narrator.chapter('Look around')
  narrator.fact('metrics', `${rig.adminUrl}/metrics`)
  narrator.fact('readiness', `${rig.adminUrl}/readyz?verbose`)
  narrator.fact('keys of the assertion', `${rig.adminUrl}/.well-known/jwks.json`)
  narrator.gap()
  narrator.say('Connect as worker-a (from the root of this checkout):')
  narrator.gap()
  narrator.verbatim(
    `npx node ${relative(process.cwd(), CONNECT)} ${rig.url} \\\n` +
      `  --from ${address} \\\n  --token-file ${tokenFile}`,
  )
  narrator.gap()
  narrator.say(
    'The handshake alone, with curl. Change the token, and the answer is 401. Without Authorization ' +
      'it is 101, because a worker can also show its token in its first message, as in chapter 4. ' +
      'Nothing reaches the gateway before that token is proven, and a connection that stays silent is ' +
      'closed after 15 s:',
  )
  narrator.gap()
  narrator.verbatim(
    `curl --http1.1 -i -N --max-time 3 --interface ${address} \\\n` +
      `  --oauth2-bearer "$(cat ${tokenFile})" \\\n` +
      "  -H 'Connection: Upgrade' -H 'Upgrade: websocket' \\\n" +
      "  -H 'Sec-WebSocket-Version: 13' \\\n" +
      `  -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \\\n  ${rig.url.replace('ws:', 'http:')}/`,
  )
  narrator.gap()
  narrator.say('The same story with the real OpenClaw: npm run demo:openclaw')
}

const tellEnd = (narrator: Narrator): number => {
  narrator.chapter('What you have seen')
  narrator.recap()
  narrator.gap()
  const { failures } = narrator
  narrator.say(
    failures === 0
      ? 'Everything went as told.'
      : `${failures} ${failures === 1 ? 'thing' : 'things'} went otherwise than told.`,
  )
  return failures === 0 ? 0 : 1
}

/** The second signal is not waited for: it ends the process as it would any other. */
const untilSignal = (): Promise<'interrupted'> =>
  new Promise((resolve) => {
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(name, () => resolve('interrupted'))
    }
  })

const expiry = (): Promise<'expired'> =>
  new Promise((resolve) => setTimeout(() => resolve('expired'), STORY_MS_MAX).unref())

const flags = readFlags()
if (flags !== undefined) {
  try {
    process.exitCode = await play(flags)
  } catch (error) {
    const isKnown = error instanceof RigError
    process.stderr.write(`${isKnown ? error.message : String(error)}\n`)
    process.exitCode = 1
  }
}
