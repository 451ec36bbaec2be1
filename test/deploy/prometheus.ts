/** A real Prometheus with the alerts of the chart, that scrapes sidecars. */

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { RULES } from '../kit/observability-files.ts'

/** As a PodMonitor would name the target. */
export const TARGET = { namespace: 'gateways', pod: 'openclaw-gateway-0' } as const

export type Prometheus = Awaited<ReturnType<typeof startPrometheus>>

type Sample = {
  readonly metric: Readonly<Record<string, string>>
  readonly value: readonly [seconds: number, text: string]
}

type Rule = {
  readonly name: string
  readonly health: string
  readonly lastError?: string
  readonly alerts: readonly { readonly annotations: Readonly<Record<string, string>> }[]
}

const LISTENING = /msg="Listening on" address=(\S+)/
const READY = /msg="Server is ready to receive web requests."/

export type PrometheusOptions = {
  /** Where everything it keeps is. */
  readonly directory: string
  /** How it finds its targets, in its own words. */
  readonly discovery: object
  /** The file of the rules. Default: as shipped. */
  readonly rulesFile?: string
  /** Between two scrapes, and between two evaluations. Default 1 s. */
  readonly interval?: string
}

/** Finds these addresses as a PodMonitor would. */
export const staticTargets = (addresses: readonly string[]) => ({
  static_configs: [{ targets: addresses, labels: TARGET }],
})

export const startPrometheus = async ({
  directory,
  discovery,
  rulesFile = fileURLToPath(RULES),
  interval = '1s',
}: PrometheusOptions) => {
  const configFile = join(directory, 'prometheus.yml')
  // JSON is YAML.
  const config = {
    global: {
      scrape_interval: interval,
      scrape_timeout: interval,
      evaluation_interval: interval,
    },
    rule_files: [rulesFile],
    scrape_configs: [{ job_name: 'gateways/auth-sidecar', honor_labels: true, ...discovery }],
  }
  await writeFile(configFile, JSON.stringify(config))
  const child = spawn(
    'prometheus',
    [
      `--config.file=${configFile}`,
      `--storage.tsdb.path=${join(directory, 'data')}`,
      '--web.listen-address=127.0.0.1:0',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  )
  process.once('exit', () => child.kill('SIGKILL'))
  const url = `http://${await findAddress(child)}/api/v1`
  const get = async (path: string): Promise<unknown> => {
    const response = await fetch(`${url}/${path}`)
    const { data, error } = (await response.json()) as { data?: unknown; error?: string }
    if (data === undefined) throw new Error(`${path}: ${error}`)
    return data
  }
  return {
    query: async (expr: string) => {
      const data = await get(`query?${new URLSearchParams({ query: expr }).toString()}`)
      return (data as { readonly result: readonly Sample[] }).result
    },
    rules: async () => {
      const data = await get('rules')
      const { groups } = data as { readonly groups: readonly { readonly rules: readonly Rule[] }[] }
      return groups.flatMap(({ rules }) => rules)
    },
    stop: async () => {
      if (child.exitCode !== null) return
      const exited = once(child, 'exit')
      child.kill('SIGTERM')
      await exited
    },
  }
}

/** Only its log says where it listens, since it takes any free port. */
const findAddress = async ({ stderr }: ChildProcess): Promise<string> => {
  if (stderr === null) throw new Error('nothing can be read of prometheus')
  const said: string[] = []
  let address = ''
  for await (const line of createInterface({ input: stderr })) {
    address = LISTENING.exec(line)?.[1] ?? address
    if (READY.test(line)) {
      // What it says later must not fill the pipe.
      stderr.resume()
      return address
    }
    said.push(line)
  }
  throw new Error(`prometheus did not start:\n${said.join('\n')}`)
}
