/** A stand-in for a model: it asks for one command in each turn, and then says that it is done. */

import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

type Request = {
  readonly messages: readonly { readonly role: string; readonly content?: unknown }[]
}

const PROVIDER = 'stub'
const MODEL = 'stub-model'
const TOOL = 'exec'

/** The part of the gateway's configuration that makes this its only model. */
export const modelsAt = (url: string) => ({
  agents: { defaults: { model: { primary: `${PROVIDER}/${MODEL}` } } },
  models: {
    mode: 'merge',
    providers: {
      [PROVIDER]: {
        baseUrl: `${url}/v1`,
        apiKey: 'unused',
        api: 'openai-completions',
        models: [
          {
            id: MODEL,
            name: 'Stub',
            reasoning: false,
            input: ['text'],
            cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
            contextWindow: 120_000,
            maxTokens: 8192,
          },
        ],
      },
    },
  },
})

/** A user's message of this form makes the model run the command, and then say `done <id>`. */
export const turnMessage = (id: string, command: string): string =>
  JSON.stringify({ turn: id, command })

const TURN = /\{"turn":"([^"]+)","command":"((?:[^"\\]|\\.)*)"\}/u

export const startModel = async (port: number) => {
  const requests: Request[] = []
  const converse = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const asked = JSON.parse(await readBody(request)) as Request
    requests.push(asked)
    answer(asked, response)
  }
  const server = createServer((request, response) => void converse(request, response))
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    requests: requests as readonly Request[],
    stop: async (): Promise<void> => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

const readBody = async (request: IncomingMessage): Promise<string> => {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}

/** The command once, and after its result the end of the turn. */
const answer = ({ messages }: Request, response: ServerResponse): void => {
  const lastTurn = messages.findLastIndex(
    ({ role, content }) => role === 'user' && TURN.test(textOf(content)),
  )
  const [, id = '', command = ''] = TURN.exec(textOf(messages[lastTurn]?.content)) ?? []
  const isRun = messages.slice(lastTurn + 1).some(({ role }) => role === 'tool')
  const text = JSON.parse(`"${command}"`) as string
  const delta =
    isRun || text === ''
      ? { role: 'assistant', content: `done ${id}` }
      : {
          role: 'assistant',
          tool_calls: [
            {
              index: 0,
              id: `call_${id}`,
              type: 'function',
              function: { name: TOOL, arguments: JSON.stringify({ command: text }) },
            },
          ],
        }
  const finish = 'tool_calls' in delta ? 'tool_calls' : 'stop'
  response.writeHead(200, { 'Content-Type': 'text/event-stream' })
  for (const choice of [
    { index: 0, delta, finish_reason: null },
    { index: 0, delta: {}, finish_reason: finish },
  ]) {
    const chunk = { id: 'c', object: 'chat.completion.chunk', model: MODEL, choices: [choice] }
    response.write(`data: ${JSON.stringify(chunk)}\n\n`)
  }
  response.end('data: [DONE]\n\n')
}

/** A message's content is a text, or parts of which some have one. */
const textOf = (content: unknown): string => {
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) return ''
  return content.map((part: { readonly text?: string }) => part.text ?? '').join('')
}
