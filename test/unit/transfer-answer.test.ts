/** Which answers of the gateway pass to a worker of a hosted session, and with which headers. */

import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { test } from 'tap'
import { readTransferAnswer } from '@openclaw-k8s/auth-sidecar/tunnel/transfer-answer.ts'

const answerOf = (status: number, headers: Readonly<Record<string, readonly string[]>>) => {
  const incoming = new IncomingMessage(new Socket())
  incoming.statusCode = status
  incoming.headersDistinct = Object.fromEntries(
    Object.entries(headers).map(([name, values]) => [name, [...values]]),
  )
  return readTransferAnswer(incoming)
}

const LENGTH = { 'content-length': ['3'] }

test('final answers of a known length pass, and no other status', async (t) => {
  for (const status of [200, 206, 299, 400, 404, 429, 500, 599]) {
    t.equal(answerOf(status, LENGTH)?.status, status)
  }
  for (const status of [0, 100, 101, 103, 199, 300, 304, 399, 600, 999]) {
    t.equal(answerOf(status, LENGTH), undefined, String(status))
  }
  t.equal(answerOf(204, {})?.status, 204, 'no content needs no length')
})

test('a length is one number of at most 4 GiB, and nothing frames the body in another way', async (t) => {
  for (const lengths of [[], ['3', '3'], ['3, 3'], ['-1'], ['3 '], ['0x3'], ['4294967297']]) {
    t.equal(answerOf(200, { 'content-length': lengths }), undefined, lengths.join('|'))
  }
  t.equal(answerOf(200, { 'content-length': ['4294967296'] })?.status, 200)
  t.equal(answerOf(200, { ...LENGTH, 'transfer-encoding': ['chunked'] }), undefined)
  t.equal(answerOf(204, { 'transfer-encoding': ['chunked'] }), undefined)
})

test('lists may be repeated, other headers not, and odd values pass no answer', async (t) => {
  const lists = { vary: ['a', 'b'], 'cache-control': ['no-store', 'private'] }
  t.strictSame(answerOf(200, { ...LENGTH, ...lists, server: ['x'] })?.headers, [
    'Content-Length',
    '3',
    'Cache-Control',
    'no-store, private',
    'Vary',
    'a, b',
  ])
  for (const bad of [
    { 'content-type': ['a', 'b'] },
    { 'content-encoding': ['gzip', 'br'] },
    { 'retry-after': ['1', '2'] },
    { 'content-type': ['a\u00e4'] },
    { 'content-type': [''] },
    { vary: ['x'.repeat(2000)] },
  ]) {
    t.equal(answerOf(200, { ...LENGTH, ...bad }), undefined, JSON.stringify(bad).slice(0, 40))
  }
})
