/** The dashboard, the alerts and the runbook as tests read them, and what the metrics really are. */

import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import { createMetrics } from '@openclaw-k8s/auth-sidecar/observe/metrics.ts'

export type Panel = {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly description?: string
  readonly datasource?: { readonly type: string; readonly uid: string }
  readonly gridPos: Readonly<Record<'x' | 'y' | 'w' | 'h', number>>
  readonly fieldConfig?: { readonly defaults: { readonly unit?: string } }
  readonly targets?: readonly { readonly expr: string; readonly refId: string }[]
}

export type Dashboard = {
  readonly uid: string
  readonly id: null
  readonly schemaVersion: number
  readonly panels: readonly Panel[]
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly type: string }[]
  }
}

export type Alert = {
  readonly alert: string
  readonly expr: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
}

export type RuleTest = {
  readonly alert_rule_test?: readonly {
    readonly alertname: string
    readonly exp_alerts?: readonly object[]
  }[]
}

export const RULES = new URL('../../charts/openclaw/files/rules.yaml', import.meta.url)
export const RULE_TESTS = new URL('../deploy/rules.test.yaml', import.meta.url)
const DASHBOARD = new URL('../../charts/openclaw/files/dashboard.json', import.meta.url)
const RUNBOOK = new URL('../../docs/runbook.md', import.meta.url)

const read = (url: URL): string => readFileSync(url, 'utf8')

export const readDashboard = (): Dashboard => JSON.parse(read(DASHBOARD)) as Dashboard

export const readAlerts = (): readonly Alert[] => {
  const { groups } = parse(read(RULES)) as { groups: readonly { rules: readonly Alert[] }[] }
  return groups.flatMap(({ rules }) => rules)
}

export const readRuleTests = (): readonly RuleTest[] =>
  (parse(read(RULE_TESTS)) as { tests: readonly RuleTest[] }).tests

export type Query = { readonly where: string; readonly expr: string }

/** Every PromQL expression there is, with the panel or the alert it belongs to. */
export const listQueries = (): readonly Query[] => [
  ...readDashboard().panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr }) => ({ where: title, expr })),
  ),
  ...readAlerts().map(({ alert, expr }) => ({ where: alert, expr })),
]

export type Heading = {
  readonly text: string
  /** The fragment that leads there on GitHub. */
  readonly slug: string
  /** The first line below it that is not empty. */
  readonly next: string
}

export const readRunbook = (): readonly Heading[] => listHeadings(read(RUNBOOK))

export const listHeadings = (markdown: string): readonly Heading[] => {
  const lines = withoutCode(markdown).split('\n')
  const seen = new Map<string, number>()
  return lines.flatMap((line, at) => {
    const text = /^#{1,6} +(.+)$/.exec(line)?.[1]
    if (text === undefined) return []
    const slug = slugOf(text)
    const before = seen.get(slug) ?? 0
    seen.set(slug, before + 1)
    const next = lines.slice(at + 1).find((other) => other !== '') ?? ''
    return [{ text, slug: before === 0 ? slug : `${slug}-${before}`, next }]
  })
}

const withoutCode = (markdown: string): string => markdown.replaceAll(/^```[^]*?^```/gm, '')

/** GitHub's rule: lower case, letters, digits, `-` and `_` stay, spaces become hyphens. */
const slugOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\-_ ]/gu, '')
    .replaceAll(' ', '-')

/** Names, labels and the values that are there from the start, of all families that are exposed. */
export const readMetrics = async () => {
  const { register } = createMetrics({ sources: () => NOTHING, version: 'any', namespaces: [] })
  return (await register.getMetricsAsJSON()).map(({ name, type, values }) => ({
    name,
    series: type.toString() === 'histogram' ? HISTOGRAM.map((suffix) => name + suffix) : [name],
    labels: values.map(({ labels }) => labels as Readonly<Record<string, string | number>>),
  }))
}

const HISTOGRAM = ['_bucket', '_sum', '_count']
const NO_CERTIFICATE = { notBefore: 0, notAfter: 0, faults: [], isEndingSoon: false, isFit: true }
const NOTHING = {
  readiness: async () =>
    ['serving', 'jwks', 'pods', 'gateway', 'operator'].map((name) => ({ name })),
  ownTokenExpiresAt: () => 0,
  carried: () => ({ bytesUp: 0, bytesDown: 0, messagesUp: 0, messagesDown: 0 }),
  streams: () => 0,
  connectedWorkers: () => new Map([['any', 0]]),
  sessionHosting: () => ({
    slots: new Map([['any', { free: 0, used: 0 }]]),
    forbidden: new Map([['any', 0]]),
  }),
  pendingSockets: () => 0,
  cacheEntries: () => 0,
  jwksAgeMs: () => 0,
  isReviewOnly: () => false,
  watchedPods: () => 0,
  watchStaleMs: () => 0,
  scopes: () => [],
  certificates: () => ['certificate', 'clientCa'].map((file) => [file, NO_CERTIFICATE] as const),
  linesDropped: () => ({ audit: 0, log: 0 }),
}

/** The names of the series an expression asks for. */
export const namesIn = (expr: string): readonly string[] => [
  ...new Set(expr.match(/\b(openclaw_k8s|nodejs|process)_[a-z0-9_]+/g)),
]

export type Matcher = { readonly label: string; readonly values: readonly string[] }

/** What an expression asks of a series: its name and its matchers, with alternatives split. */
export const selectorsIn = (expr: string) =>
  [...expr.matchAll(/([a-z][a-z0-9_]+)\{([^}]*)\}/g)].map(([, name = '', matchers = '']) => ({
    name,
    matchers: [...matchers.matchAll(/([a-z]+)\s*[=!]~?\s*"([^"]*)"/g)].map(
      ([, label = '', values = '']): Matcher => ({ label, values: values.split('|') }),
    ),
  }))
