/**
 * Shows the status as it changes. Names come from strangers: whatever is shown is the text of a text
 * node, and a policy of the page forbids the browser anything else.
 * @import { Status } from '../status.ts'
 */

import {
  countOf,
  describeKeys,
  describeWatch,
  secondsBetween,
  shortAge,
  shortCount,
} from './words.js'

const RUNBOOK = 'https://github.com/openclaw-k8s/auth-sidecar/blob/main/docs/runbook.md'
/** How long to wait before another try where the sidecar has refused the events. */
const RETRY_MS = 5000
/** Without news for so long the page says that it is not live. */
const SILENT_MS = 5000

/** What keeps workers out comes first. */
const ORDER = { bad: 0, warn: 1, good: 2, '': 2 }

/** @typedef {Status['streams']['listed'][number]} StreamRow */
/** @typedef {Status['refusals'][number]} RefusalRow */
/** @typedef {'good' | 'bad' | 'warn' | ''} State */
/** @typedef {{ term: string, text: string, state?: State }} Fact */

/** @param {string} id */
const element = (id) => {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`there is no #${id}`)
  return found
}

/**
 * Writes only what has changed, so that a selection stays and a screen reader is left in peace.
 * @param {Element} node
 * @param {string} text
 */
const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text
}

/**
 * @param {HTMLElement} node
 * @param {State} state
 */
const setState = (node, state) => {
  if (node.dataset['state'] !== state) node.dataset['state'] = state
}

/**
 * Makes `parent` have `count` children.
 * @param {Element} parent
 * @param {number} count
 * @param {() => Element} create
 */
const setLength = (parent, count, create) => {
  while (parent.children.length > count) parent.lastElementChild?.remove()
  while (parent.children.length < count) parent.append(create())
}

/**
 * @param {string} name
 * @param {string} className
 * @param {readonly (Element | string)[]} [children]
 */
const create = (name, className, children = []) => {
  const node = document.createElement(name)
  node.className = className
  node.append(...children)
  return node
}

/**
 * @param {string} className
 * @param {string} label Shown before the value where there are no column heads; none if empty.
 * @param {readonly (Element | string)[]} [children]
 */
const cell = (className, label, children = []) => {
  const node = create('td', className, children)
  node.setAttribute('role', 'cell')
  if (label !== '') node.dataset['label'] = label
  return node
}

/** @param {readonly Element[]} cells */
const row = (cells) => {
  const node = create('tr', '', cells)
  node.setAttribute('role', 'row')
  return node
}

/**
 * Namespace, name and a remark.
 * @param {string} tag
 */
const createPod = (tag) => [create('span', 'muted'), create('span', ''), ' ', create('span', tag)]

const createStreamRow = () =>
  row([
    cell('name', '', createPod('tag calm')),
    cell('name', 'account'),
    cell('name', 'node'),
    cell('name', 'address'),
    cell('number', 'messages'),
    cell('number', 'bytes'),
    cell('number', 'open for'),
  ])

const createRefusalRow = () =>
  row([
    cell('', '', [create('a', 'name'), create('span', 'small')]),
    cell('name wide', '', createPod('tag')),
    cell('name wide', 'from'),
    cell('number', 'times'),
    cell('number', 'last'),
  ])

/**
 * Fills the leaves of a row, in order.
 * @param {Element} node
 * @param {readonly string[]} texts
 */
const fill = (node, texts) => {
  const leaves = [...node.querySelectorAll('*')].filter(({ children }) => children.length === 0)
  for (const [at, leaf] of leaves.entries()) setText(leaf, texts[at] ?? '')
}

/**
 * @param {number} up
 * @param {number} down
 */
const upAndDown = (up, down) => `${shortCount(up)} / ${shortCount(down)}`

/**
 * @param {StreamRow} stream
 * @param {string} now
 */
const textsOfStream = (stream, now) => [
  `${stream.namespace}/`,
  stream.podName,
  stream.hosted === 0 ? '' : `${stream.hosted} hosted`,
  stream.serviceAccount,
  stream.nodeName ?? '',
  stream.address,
  upAndDown(stream.messagesUp, stream.messagesDown),
  upAndDown(stream.bytesUp, stream.bytesDown),
  shortAge(secondsBetween(stream.since, now)),
]

/**
 * Namespace, name and a remark.
 * @param {RefusalRow} refusal
 */
const textsOfPod = ({ pod, isOfManyPods, isSigned }) => {
  if (isOfManyPods) return ['', 'many other names', 'unproven']
  if (pod === undefined) return ['', 'no token', '']
  const name = pod.podName ?? `(no pod), account ${pod.serviceAccount}`
  return [`${pod.namespace}/`, name, isSigned ? '' : 'unproven']
}

/**
 * @param {RefusalRow} refusal
 * @param {string} now
 */
const textsOfRefusal = (refusal, now) => [
  refusal.code,
  refusal.message,
  ...textsOfPod(refusal),
  refusal.address,
  String(refusal.count),
  `${shortAge(secondsBetween(refusal.lastAt, now))} ago`,
]

/**
 * @param {Status['checks'][number]} check
 * @returns {readonly { name: string, text: string, state: State }[]}
 */
const itemsOf = ({ name, objection, warnings }) => {
  if (objection !== undefined) return [{ name, text: objection, state: 'bad' }]
  if (warnings.length === 0) return [{ name, text: '', state: 'good' }]
  return warnings.map((text) => ({ name, text, state: 'warn' }))
}

/** @param {Status} status */
const showState = ({ isReady, checks }) => {
  const missing = checks.filter(({ objection }) => objection !== undefined)
  const names = missing.map(({ name }) => name).join(', ')
  setState(element('state'), isReady ? 'good' : 'bad')
  const verdict = isReady ? 'Ready' : `Not ready: ${names}`
  // Most of the time nothing changes, and a screen reader says nothing.
  setText(element('verdict'), verdict)
  document.title = `${isReady ? 'Ready' : 'Not ready'} \u00b7 auth-sidecar`
  const items = checks.flatMap(itemsOf).toSorted((a, b) => ORDER[a.state] - ORDER[b.state])
  const list = element('checks')
  setLength(list, items.length, () => create('li', '', [create('b', ''), create('span', '')]))
  for (const [at, { name, text, state }] of items.entries()) {
    const item = /** @type {HTMLElement} */ (list.children[at])
    setState(item, state)
    fill(item, [name, text === '' ? '' : `: ${text}`])
  }
}

/** @param {Status} status */
const showStreams = ({ streams, at }) => {
  const { open, pods, listed } = streams
  const rest = pods - listed.length
  const more = rest === 0 ? '' : `, the last ${listed.length} of them here`
  setText(
    element('streams-note'),
    open === 0 ? '' : `${open} open, of ${countOf(pods, 'pod')}${more}`,
  )
  element('streams').hidden = open === 0
  element('streams-empty').hidden = open > 0
  const body = element('streams').querySelector('tbody') ?? element('streams')
  setLength(body, listed.length, createStreamRow)
  for (const [index, stream] of listed.entries()) {
    const node = body.children[index]
    if (node !== undefined) fill(node, textsOfStream(stream, at))
  }
}

/** @param {Status} status */
const showRefusals = ({ refusals, at }) => {
  const hasUnproven = refusals.some((refusal) => textsOfPod(refusal)[2] !== '')
  const note = hasUnproven ? '; unproven: named by a token that was not verified' : ''
  setText(element('refusals-note'), `in the last hour${note}`)
  element('refusals').hidden = refusals.length === 0
  element('refusals-empty').hidden = refusals.length > 0
  const body = element('refusals').querySelector('tbody') ?? element('refusals')
  setLength(body, refusals.length, createRefusalRow)
  for (const [index, refusal] of refusals.entries()) {
    const node = body.children[index]
    if (node === undefined) continue
    fill(node, textsOfRefusal(refusal, at))
    const link = node.querySelector('a')
    // The codes are the sidecar's, whatever a worker sends.
    const target = `${RUNBOOK}#${encodeURIComponent(refusal.code)}`
    if (link !== null && link.href !== target) {
      link.href = target
      link.rel = 'noreferrer'
      link.target = '_blank'
    }
  }
}

/**
 * @param {string} id
 * @param {readonly Fact[]} facts
 */
const showFacts = (id, facts) => {
  const list = element(id)
  const nodes = facts.length * 2
  while (list.children.length > nodes) list.lastElementChild?.remove()
  while (list.children.length < nodes) list.append(create('dt', ''), create('dd', ''))
  for (const [at, { term, text, state = '' }] of facts.entries()) {
    const [name, value] = [list.children[at * 2], list.children[at * 2 + 1]]
    if (name !== undefined) setText(name, term)
    if (!(value instanceof HTMLElement)) continue
    setText(value, text)
    setState(value, state)
  }
}

/**
 * @param {Status} status
 * @returns {readonly Fact[]}
 */
const factsOfCluster = ({ watch, keys }) => {
  const { ageSeconds, isReviewOnly } = keys
  const isStale = watch.bad.length > 0
  const bad = watch.bad.map(({ scope, state }) => ({
    term: scope,
    text: state === 'stale' ? 'the watch is down' : 'not listed yet',
    state: /** @type {State} */ ('warn'),
  }))
  return [
    { term: 'Pods watched', text: `${watch.pods} in ${countOf(watch.scopes, 'scope')}` },
    {
      term: 'Watch',
      text: describeWatch(watch),
      state: isStale ? 'warn' : '',
    },
    ...bad,
    {
      term: 'Signing keys',
      text: describeKeys(keys),
      state: isReviewOnly || ageSeconds === undefined ? 'warn' : '',
    },
  ]
}

/**
 * @param {Status['certificates'][number]} certificate
 * @param {string} now
 * @returns {Fact}
 */
const factOfCertificate = ({ file, faults, isEndingSoon, notAfter }, now) => {
  const term = file === 'certificate' ? 'Worker port' : 'Client CA'
  if (faults.length > 0) return { term, text: faults.join(' '), state: 'bad' }
  const left = shortAge(secondsBetween(now, notAfter))
  const text = `valid until ${notAfter.slice(0, 10)}, ${left} left`
  if (!isEndingSoon) return { term, text }
  return { term, text: `${text}; it should have been renewed`, state: 'warn' }
}

/**
 * @param {Status} status
 * @returns {readonly Fact[]}
 */
const factsOfCertificates = ({ certificates, at }) =>
  certificates.length === 0
    ? [{ term: 'Worker port', text: 'plain TCP, no certificate' }]
    : certificates.map((certificate) => factOfCertificate(certificate, at))

/** @param {Status} status */
const show = (status) => {
  const { version, startedAt, at } = status
  setText(element('process'), `${version}, up ${shortAge(secondsBetween(startedAt, at))}`)
  showState(status)
  showStreams(status)
  showRefusals(status)
  showFacts('cluster', factsOfCluster(status))
  showFacts('certificates', factsOfCertificates(status))
}

let heardAt = 0

/**
 * @param {'live' | 'lost'} state
 * @param {string} text
 */
const showLink = (state, text) => {
  const link = element('link')
  link.dataset['state'] = state
  setText(link, text)
  // What is shown is old.
  document.body.classList.toggle('stale', state === 'lost')
}

const showLost = () => {
  const ago = heardAt === 0 ? '' : `, last heard ${shortAge((Date.now() - heardAt) / 1000)} ago`
  showLink('lost', `not connected${ago}`)
}

/** A browser opens a stream again by itself, but not one that the sidecar has refused. */
const follow = () => {
  const events = new EventSource('/events')
  events.addEventListener('message', ({ data }) => {
    heardAt = Date.now()
    show(JSON.parse(data))
    showLink('live', 'live')
  })
  events.addEventListener('error', () => {
    showLost()
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, RETRY_MS)
  })
}

setInterval(() => {
  if (Date.now() - heardAt > SILENT_MS) showLost()
}, 1000)
follow()
