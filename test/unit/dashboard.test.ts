/** The dashboard can be put into any Grafana, and each panel says what it shows. */

import { test } from 'tap'
import { namesIn, readDashboard, selectorsIn, type Panel } from '../kit/observability-files.ts'

const GRID_COLUMNS = 24
const ROWS = [
  'Overview',
  'Admission',
  'Revocation',
  'API server',
  'Tunnel',
  'Session hosting',
  'Process',
]

/** Metrics whose label `namespace` is that of the workers. */
const OF_WORKERS = [
  'sessions_active',
  'connected_workers',
  'session_slots',
  'session_hosting_forbidden',
].map((name) => `openclaw_k8s_${name}`)

const dashboard = readDashboard()
const rows = dashboard.panels.filter(({ type }) => type === 'row')
const panels = dashboard.panels.filter(({ type }) => type !== 'row')
const queries = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))

test('it keeps its address, and has no database id yet', async (t) => {
  t.equal(dashboard.uid, 'openclaw-auth-sidecar')
  t.equal(dashboard.id, null)
  t.ok(dashboard.schemaVersion >= 39)
})

test('the data source is a variable, and every panel uses it', async (t) => {
  const variables = dashboard.templating.list.map(({ name, type }) => `${name}: ${type}`)
  t.strictSame(variables, ['datasource: datasource', 'namespace: query', 'pod: query'])
  for (const { title, datasource } of panels) {
    t.strictSame(datasource, { type: 'prometheus', uid: '${datasource}' }, title)
  }
})

test('every panel has a title, a description, a unit and queries', async (t) => {
  for (const { title, description = '', fieldConfig, targets = [] } of panels) {
    t.match(title, /^[A-Z]/)
    t.match(description, /^[A-Z`].{20,}[.]$/, title)
    t.type(fieldConfig?.defaults.unit, 'string', title)
    const refs = targets.map(({ refId }) => refId)
    t.ok(refs.length > 0 && new Set(refs).size === refs.length, title)
  }
})

test('the rows are in order, and no panel overlaps another', async (t) => {
  t.strictSame(
    rows.map(({ title }) => title),
    ROWS,
  )
  const ids = dashboard.panels.map(({ id }) => id)
  t.equal(new Set(ids).size, ids.length, 'ids are distinguished')
  for (const panel of dashboard.panels) {
    t.ok(panel.gridPos.x + panel.gridPos.w <= GRID_COLUMNS, panel.title)
    const under = dashboard.panels.filter((other) => other.id !== panel.id && isOn(panel, other))
    t.strictSame(under, [], panel.title)
  }
})

const isOn = ({ gridPos: one }: Panel, { gridPos: other }: Panel): boolean =>
  one.x < other.x + other.w &&
  other.x < one.x + one.w &&
  one.y < other.y + other.h &&
  other.y < one.y + one.h

test('every query keeps to the chosen namespace and pod', async (t) => {
  for (const expr of queries) {
    const chosen = selectorsIn(expr).map(({ name, matchers }) => ({
      name,
      by: matchers.filter(({ values }) => /^\$(namespace|pod)$/.test(values.join())),
    }))
    t.strictSame(
      [...new Set(chosen.map(({ name }) => name))].sort(),
      namesIn(expr).toSorted(),
      expr,
    )
    for (const { name, by } of chosen) {
      // Where the label `namespace` is the workers', the join with the build info chooses.
      const expected = OF_WORKERS.includes(name) ? ['pod'] : ['namespace', 'pod']
      t.strictSame(
        by.map(({ label }) => label),
        expected,
        expr,
      )
    }
  }
})

test('the three queries of the original document are kept, the first one corrected', async (t) => {
  const plain = queries.map((expr) =>
    expr.replaceAll(/,?(namespace|pod)=~"\$\w+"/g, '').replaceAll(/\{\}|\s+/g, ''),
  )
  const attempts = 'openclaw_k8s_auth_attempts_total'
  t.ok(plain.includes(`sum(rate(${attempts}{result="success"}[5m]))/sum(rate(${attempts}[5m]))`))
  t.ok(plain.some((expr) => expr.startsWith('sumby(namespace)(openclaw_k8s_sessions_active')))
  t.ok(plain.includes(`increase(${attempts}{result="failed"}[5m])>0`))
  const rate = panels.find(({ title, type }) => title === 'Auth success rate' && type !== 'stat')
  t.match(rate?.description, /sum\(\)/)
})
