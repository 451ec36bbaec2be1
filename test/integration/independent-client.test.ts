/** A client in another language by another author gets through like our own. */

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { test } from 'tap'
import { preparePython, PYTHON_LIBRARIES } from '../kit/python-websockets.ts'
import { startRig } from '../kit/rig.ts'

const run = promisify(execFile)

const CLIENT_MS_MAX = 20_000

/** Python's `websockets`; it offers compression by default, which nobody here may accept. */
const CLIENT = `
import json, os
from websockets.sync.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

url, token, source = os.environ["URL"], os.environ["TOKEN"], (os.environ["SOURCE"], 0)
told = {}

def bearer(value):
    return {"Authorization": "Bearer " + value}

with connect(url, additional_headers=bearer(token), source_address=source) as ws:
    told["extensions"] = [extension.name for extension in ws.protocol.extensions]
    ws.send("text \\u2713")
    told["text"] = ws.recv()
    ws.send(bytes(range(256)))
    told["binary"] = ws.recv().hex()
    ws.send(["in ", "three ", "fragments"])
    told["fragments"] = ws.recv()
    ws.send("x" * 100000)
    told["long"] = len(ws.recv())
    told["pong"] = ws.ping("beat").wait(10)
    ws.close(4001, "done")
    told["own_close"] = [ws.protocol.close_code, ws.protocol.close_reason]

with connect(url, subprotocols=["openclaw.v4"], additional_headers=bearer(token),
             source_address=source) as ws:
    told["subprotocol"] = ws.subprotocol
    ws.send("leave")
    try:
        while True:
            ws.recv()
    except ConnectionClosed as closed:
        told["their_close"] = [closed.rcvd.code, closed.rcvd.reason]

with connect(url, source_address=source) as ws:
    ws.send(json.dumps({"type": "connect.request", "authMode": "k8s-sa", "saToken": token,
                        "role": "node"}))
    told["in_band"] = json.loads(ws.recv())
    ws.send("after")
    told["after"] = ws.recv()

try:
    connect(url, additional_headers=bearer("nonsense"), source_address=source)
except InvalidStatus as refusal:
    told["refused"] = [refusal.response.status_code, json.loads(refusal.response.body)["error"]["type"]]

print(json.dumps(told))
`

test("Python's websockets speaks through the sidecar", async (t) => {
  const obstacle = await preparePython()
  if (obstacle !== undefined) return t.plan(0, obstacle)
  const rig = await startRig()
  t.teardown(() => rig.stop())
  rig.gateway.setBehavior('accept', { connections: 1 })
  rig.gateway.setBehavior('subprotocol', { connections: 1 })
  const leave = async () => {
    const connection = await rig.gateway.waitForConnection(2)
    await rig.gateway.waitForMessage()
    connection.close(4002, 'the gateway is done')
  }
  const left = leave()
  const { stdout } = await run('python3', ['-c', CLIENT], {
    timeout: CLIENT_MS_MAX,
    env: {
      ...process.env,
      PYTHONPATH: PYTHON_LIBRARIES,
      URL: rig.url,
      SOURCE: '127.0.0.11',
      TOKEN: rig.mint({ pod: rig.createPod() }),
    },
  })
  await left
  t.same(JSON.parse(stdout), {
    extensions: [],
    text: 'text ✓',
    binary: Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)).toString('hex'),
    fragments: 'in three fragments',
    long: 100_000,
    pong: true,
    own_close: [4001, 'done'],
    subprotocol: 'openclaw.v4',
    their_close: [4002, 'the gateway is done'],
    in_band: { type: 'connect.response', success: true },
    after: 'after',
    refused: [401, 'token_malformed'],
  })
  return undefined
})
