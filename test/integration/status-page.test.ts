/** The status page: the same rule as the status, nothing inline, and nothing from elsewhere. */

import { readFileSync } from 'node:fs'
import tap, { test } from 'tap'
import { PAGE } from '@openclaw-k8s/auth-sidecar/edge/page-files.ts'
import { startAdminRig } from '../kit/admin-rig.ts'
import { readAll, dialFrom } from '../kit/admin-rig.ts'

const rig = await startAdminRig({ isLocalAddress: (address) => address === '127.0.0.1' })
tap.teardown(() => rig.close())

const PATHS = [...Object.keys(PAGE), '/events']

const askRaw = async (path: string, fields: readonly string[], from = '127.0.0.1') => {
  const socket = await dialFrom(rig.port, from)
  socket.write([`GET ${path} HTTP/1.1`, ...fields, 'Connection: close', '', ''].join('\r\n'))
  const text = await readAll(socket)
  return { status: Number(/^HTTP\/1.1 (\d+)/.exec(text)?.[1]), text }
}

test('from the pod network no part of it is found', async (t) => {
  for (const path of PATHS) {
    t.match(await askRaw(path, ['Host: localhost'], '127.0.0.11'), { status: 404 }, path)
  }
})

test('a rebound name, a foreign Origin and a foreign fetch get no part of it', async (t) => {
  for (const path of PATHS) {
    for (const fields of [
      ['Host: rebound.example'],
      ['Host: localhost', 'Origin: http://evil.example'],
      ['Host: localhost', 'Sec-Fetch-Site: cross-site', 'Sec-Fetch-Dest: script'],
      ['Host: localhost', 'X-Forwarded-For: 10.0.0.1'],
    ]) {
      t.match(await askRaw(path, fields), { status: 404 }, `${path} ${fields.join()}`)
    }
  }
})

test('a link on another site may open it in a window', async (t) => {
  const opened = ['Host: localhost', 'Sec-Fetch-Site: cross-site', 'Sec-Fetch-Dest: document']
  t.match(await askRaw('/', opened), { status: 200 })
})

test('it is read with GET alone', async (t) => {
  for (const path of PATHS) {
    for (const method of ['POST', 'HEAD', 'PUT', 'DELETE', 'OPTIONS']) {
      t.equal((await fetch(`${rig.url}${path}`, { method })).status, 404, `${method} ${path}`)
    }
  }
})

test('its policy allows its own files, and nothing inline', async (t) => {
  for (const [path, { type, text }] of Object.entries(PAGE)) {
    const answer = await fetch(`${rig.url}${path}`)
    t.equal(answer.headers.get('content-type'), type)
    t.equal(await answer.text(), text)
    const policy = answer.headers.get('content-security-policy') ?? ''
    t.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';/)
    t.match(policy, "frame-ancestors 'none'")
    t.match(policy, "require-trusted-types-for 'script'")
    t.notMatch(policy, /unsafe|\*|data:|https?:/)
  }
})

test('it has no inline script or style, and names no other host but that of the runbook', async (t) => {
  const html = PAGE['/'].text
  t.notMatch(html, /<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc="\/)/i)
  const all = Object.values(PAGE)
    .map(({ text }) => text)
    .join('\n')
  t.strictSame([...new Set(all.match(/(?:https?:)?\/\/[\w-]+\.\w+/g))], ['https://github.com'])
  t.notMatch(all, /innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function/)
})

test('the pictures in the documents are there, and small', async (t) => {
  const docs = new URL('../../docs/', import.meta.url)
  for (const name of ['light-390', 'light-1280', 'dark-390', 'dark-1280', 'not-ready-1280']) {
    const png = readFileSync(new URL(`status-${name}.png`, docs))
    t.equal(png.readUInt32BE(0), 0x89504e47)
    t.ok(png.length < 300_000, `${name}: ${png.length}`)
    // Its width in pixels: a phone's picture has more of them.
    const width = png.readUInt32BE(16)
    t.ok([585, 1280].includes(width), String(width))
  }
})
