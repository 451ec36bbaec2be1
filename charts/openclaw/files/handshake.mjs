// A worker's handshake through the Service, and the refusal of a token nobody signed.
import { createHash, generateKeyPairSync, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'

const { URL: url, PROTOCOL: protocol, TOKEN_FILE: tokenFile } = process.env
const TIME_LIMIT_MS = 30_000
const ATTEMPTS_MAX = 3

const token = readFileSync(tokenFile, 'utf8').trim()
// The same claims under a signature that is not the cluster's.
const forged = `${token.slice(0, token.lastIndexOf('.') + 1)}${'A'.repeat(342)}`

/** Resolves with `admitted`, or with why not: the sidecar's code where it gave one. */
const handshake = (credential) =>
  new Promise((resolve) => {
    const headers = protocol === 'stream' ? { Authorization: `Bearer ${credential}` } : {}
    const socket = new WebSocket(url, { headers })
    const finish = (outcome) => {
      clearTimeout(timer)
      resolve(outcome)
      socket.close()
    }
    const timer = setTimeout(finish, TIME_LIMIT_MS, `no answer within ${TIME_LIMIT_MS} ms`)
    socket.addEventListener('error', ({ message, error }) =>
      finish(`the upgrade failed: ${error?.cause?.message ?? error?.message ?? message}`),
    )
    socket.addEventListener('close', ({ code, reason }) => finish(`closed ${code} ${reason}`))
    if (protocol === 'stream') socket.addEventListener('open', () => finish('admitted'))
    else socket.addEventListener('message', ({ data }) => converse(socket, credential, data, finish))
  })

/** OpenClaw's protocol, version 4: the challenge is answered, and the answer to that is the verdict. */
const converse = (socket, credential, data, finish) => {
  const frame = JSON.parse(data)
  if (frame.event === 'connect.challenge') socket.send(JSON.stringify(connect(credential, frame.payload)))
  if (frame.type === 'res') finish(frame.ok ? 'admitted' : frame.error?.details?.authReason ?? frame.error?.code)
}

const connect = (credential, { nonce, ts }) => {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const raw = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
  const id = createHash('sha256').update(raw).digest('hex')
  const [platform, family] = ['linux', 'Linux']
  const client = { id: 'node-host', mode: 'node', displayName: 'handshake', version: '1', platform, deviceFamily: family }
  const proof = ['v3', id, client.id, client.mode, 'node', '', ts, credential, nonce, platform, family.toLowerCase()]
  const signature = sign(null, Buffer.from(proof.join('|')), privateKey).toString('base64url')
  return {
    type: 'req',
    id: '1',
    method: 'connect',
    params: {
      minProtocol: 4,
      maxProtocol: 4,
      client,
      caps: [],
      commands: [],
      role: 'node',
      scopes: [],
      auth: { token: credential },
      device: { id, publicKey: raw.toString('base64url'), signature, signedAt: ts, nonce },
    },
  }
}

const say = (line) => process.stdout.write(`${line}\n`)

let outcome
// The gateway may be asked while it starts; a worker would come back as well.
for (let attempt = 1; attempt <= ATTEMPTS_MAX && outcome !== 'admitted'; attempt += 1) {
  outcome = await handshake(token)
  say(`own token, attempt ${attempt}: ${outcome}`)
}
const refusal = await handshake(forged)
say(`forged token: ${refusal}`)
process.exit(outcome === 'admitted' && refusal !== 'admitted' ? 0 : 1)
