/** Writes the chart's `values.schema.json` from its values, their comments and the sidecar's own schema. */

import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { isMap, isScalar, isSeq, parseDocument, type Node, type Pair } from 'yaml'
import { jsonSchema } from '@openclaw-k8s/auth-sidecar/config/schema.ts'

const VALUES = new URL('../../charts/openclaw/values.yaml', import.meta.url)
const SCHEMA = new URL('../../charts/openclaw/values.schema.json', import.meta.url)

type Schema = Readonly<Record<string, unknown>>

const PULL_POLICY = { enum: ['Always', 'IfNotPresent', 'Never'] }
const STRINGS = { type: 'array', items: { type: 'string' } }
const STRING_MAP = { type: 'object', additionalProperties: { type: 'string' } }
const SECONDS = { type: 'integer', minimum: 0 }
const LIST = { type: 'array', items: { type: 'object' } }
/** Fields of a Kubernetes probe that say when, not what. */
const PROBE = {
  type: 'object',
  additionalProperties: false,
  properties: Object.fromEntries(
    [
      'initialDelaySeconds',
      'periodSeconds',
      'timeoutSeconds',
      'successThreshold',
      'failureThreshold',
      'terminationGracePeriodSeconds',
    ].map((field) => [field, SECONDS]),
  ),
}
const DIGEST = { pattern: '^$|^sha256:[0-9a-f]{64}$' }
/** The name of an object, where the chart has one of its own if it is empty. */
const OPTIONAL_NAME = { pattern: '^$|^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$' }
const ALERT = {
  type: 'object',
  additionalProperties: false,
  properties: {
    enabled: { type: 'boolean' },
    threshold: { type: 'number' },
    for: { type: 'string', pattern: '^([0-9]+(ms|s|m|h|d))+$' },
    severity: { type: 'string', minLength: 1 },
  },
}
const DURATION = { type: 'string', pattern: '^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$' }

/** What a default cannot tell: bounds, choices, and what the lists and maps hold. */
const REFINEMENTS: Readonly<Record<string, Schema>> = {
  commonLabels: STRING_MAP,
  'image.repository': { minLength: 1 },
  'image.tag': { minLength: 1 },
  'image.pullPolicy': PULL_POLICY,
  'image.digest': DIGEST,
  clusterDomain: { minLength: 1 },
  'gateway.token': { pattern: '^$|^[!-~]{16,512}$' },
  'gateway.secretKey': { minLength: 1 },
  'gateway.command': { ...STRINGS, minItems: 1 },
  'gateway.preStopSleepSeconds': SECONDS,
  'gateway.terminationGracePeriodSeconds': SECONDS,
  'gateway.persistence.accessModes': { ...STRINGS, minItems: 1 },
  'gateway.persistence.size': { pattern: '^[0-9]+(\\.[0-9]+)?([EPTGMk]i?)?$' },
  'gateway.service.port': { minimum: 1, maximum: 65_535 },
  'gateway.service.annotations': STRING_MAP,
  'gateway.serviceAccount.name': OPTIONAL_NAME,
  'gateway.serviceAccountAnnotations': STRING_MAP,
  'gateway.annotations': STRING_MAP,
  'gateway.podAnnotations': STRING_MAP,
  'gateway.podLabels': STRING_MAP,
  'gateway.nodeSelector': STRING_MAP,
  'existingGateway.name': OPTIONAL_NAME,
  'existingGateway.container': OPTIONAL_NAME,
  'existingGateway.serviceAccountName': OPTIONAL_NAME,
  'existingGateway.podLabels': STRING_MAP,
  'existingGateway.kind': { enum: ['StatefulSet', 'Deployment'] },
  'sidecar.image.repository': { minLength: 1 },
  'sidecar.image.pullPolicy': PULL_POLICY,
  'sidecar.image.digest': DIGEST,
  'sidecar.deviceSeedSecret.key': { minLength: 1 },
  'workers.enabled': { type: ['boolean', 'string'], enum: [true, false, 'auto'] },
  'workers.replicas': { minimum: 0 },
  // The API server refuses shorter ones.
  'workers.tokenExpirationSeconds': { minimum: 600 },
  'workers.extraArgs': STRINGS,
  'workers.terminationGracePeriodSeconds': SECONDS,
  'workers.serviceAccount.name': OPTIONAL_NAME,
  'workers.serviceAccountAnnotations': STRING_MAP,
  'workers.annotations': STRING_MAP,
  'workers.podAnnotations': STRING_MAP,
  'workers.podLabels': STRING_MAP,
  'workers.nodeSelector': STRING_MAP,
  'workers.autoscaling.minReplicas': { minimum: 1 },
  'workers.autoscaling.maxReplicas': { minimum: 1 },
  'workers.autoscaling.targetCPUUtilizationPercentage': { minimum: 1 },
  'workers.autoscaling.metric': { enum: ['cpu', 'sessions'] },
  'workers.autoscaling.sessions.provider': { enum: ['keda', 'prometheus-adapter'] },
  'workers.autoscaling.sessions.slotsPerWorker': { minimum: 1 },
  'workers.autoscaling.sessions.spareSlots': { minimum: 0 },
  'workers.autoscaling.sessions.prometheusUrl': { pattern: '^https?://' },
  'workers.podDisruptionBudget.maxUnavailable': { type: ['integer', 'string'] },
  'networkPolicy.prometheus': LIST,
  'networkPolicy.extraWorkers': LIST,
  'networkPolicy.egress.dns': LIST,
  'networkPolicy.egress.apiServer': LIST,
  'networkPolicy.egress.gateway': LIST,
  'networkPolicy.egress.workers': LIST,
  'tls.certManager.duration': DURATION,
  'tls.certManager.renewBefore': DURATION,
  'tls.certManager.dnsNames': { ...STRINGS, uniqueItems: true },
  'monitoring.runbookUrl': { pattern: '^https?://' },
  'monitoring.prometheusRule.alerts': { type: 'object', additionalProperties: ALERT },
  'monitoring.podMonitor.interval': DURATION,
  'monitoring.podMonitor.labels': STRING_MAP,
  'monitoring.serviceMonitor.interval': DURATION,
  'monitoring.serviceMonitor.labels': STRING_MAP,
  'monitoring.prometheusRule.labels': STRING_MAP,
  'monitoring.dashboard.labels': STRING_MAP,
  'monitoring.dashboard.annotations': STRING_MAP,
}

/** Objects of Kubernetes' own: it knows best what belongs there. */
const OPEN = /(^|\.)(resources|(podS|s)ecurityContext)$/

const PROBES = /\.probes\.[a-z]+$/

/** The schema as the file holds it. Every key is known, so that a misspelled one is an error. */
export const renderValuesSchema = (values: string): string => {
  const { contents } = parseDocument(values)
  const { properties, ...rest } = describe('', contents as Node)
  const known = properties as Readonly<Record<string, Schema>>
  const schema = {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Values of the openclaw chart',
    ...rest,
    // Helm hands a parent chart's globals to every chart.
    properties: { ...known, workerGroups: groups(known), global: { type: 'object' } },
  }
  return `${JSON.stringify(schema, null, 2)}\n`
}

const describe = (path: string, node: Node): Schema => {
  const refinement = REFINEMENTS[path] ?? {}
  if (path === 'sidecar.config') return sidecarConfig()
  if (PROBES.test(path)) return PROBE
  if (isMap(node) && node.items.length > 0 && !('type' in refinement) && !OPEN.test(path)) {
    const entries = node.items.map((pair, at) =>
      // A comment before the first key is the map's, to the parser.
      describeKey(path, pair as Pair<Node, Node>, at === 0 ? node.commentBefore : undefined),
    )
    return { type: 'object', additionalProperties: false, properties: Object.fromEntries(entries) }
  }
  return { type: typeOf(node), ...refinement }
}

const describeKey = (
  path: string,
  { key, value }: Pair<Node, Node>,
  before: string | null | undefined,
): [string, Schema] => {
  const name = String(key)
  const schema = describe(path === '' ? name : `${path}.${name}`, value as Node)
  const comment = /^ *-- (.+)$/m.exec(key.commentBefore ?? before ?? '')?.[1]
  return [name, comment === undefined ? schema : { description: comment, ...schema }]
}

const typeOf = (node: Node): string => {
  if (isMap(node)) return 'object'
  if (isSeq(node)) return 'array'
  const value = isScalar(node) ? node.value : undefined
  return typeof value === 'number' ? 'integer' : typeof value
}

/** A group of workers can set whatever `workers` can. */
const groups = ({ workers, workerGroups }: Readonly<Record<string, Schema>>): Schema => {
  const names = Object.keys(workers?.['properties'] as Schema)
  const fields = names.map((name) => [name, { $ref: `#/properties/workers/properties/${name}` }])
  // Short enough to be part of the names of pods.
  const name = { type: 'string', pattern: '^[a-z0-9]([-a-z0-9]{0,14}[a-z0-9])?$' }
  const properties = { name, ...(Object.fromEntries(fields) as Schema) }
  const items = { type: 'object', additionalProperties: false, required: ['name'], properties }
  return { ...workerGroups, items }
}

/** The sidecar's own schema; an empty document is irrelevant here, since the chart fills it. */
const sidecarConfig = (): Schema => {
  const { $schema: _draft, $id: _id, title, ...schema } = jsonSchema()
  return { description: title, ...schema }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(SCHEMA, renderValuesSchema(readFileSync(VALUES, 'utf8')))
}
