/**
 * Numbers, ages and states in few words, for the status page and the `status` command.
 * @import { Status } from '../status.ts'
 */

const SECONDS = { d: 86_400, h: 3600, m: 60 }

/**
 * An age in its largest whole unit: `8s`, `5m`, `3h`, `12d`.
 * @param {number} seconds
 * @returns {string}
 */
export function shortAge(seconds) {
  for (const [unit, size] of Object.entries(SECONDS)) {
    if (seconds >= size) return `${Math.floor(seconds / size)}${unit}`
  }
  return `${Math.max(0, Math.floor(seconds))}s`
}

const STEPS = ['', 'k', 'M', 'G', 'T', 'P']

/**
 * A number in at most four characters: `980`, `1.2k`, `12k`, `3.4M`.
 * @param {number} value
 * @returns {string}
 */
export function shortCount(value) {
  let left = value
  let step = 0
  // What would be rounded up to 1000 belongs to the next step.
  while (left >= 999.5 && step < STEPS.length - 1) {
    left /= 1000
    step += 1
  }
  const digits = step > 0 && left < 9.95 ? left.toFixed(1) : left.toFixed(0)
  return `${digits}${STEPS[step]}`
}

/**
 * Seconds between two times in ISO 8601.
 * @param {string} from
 * @param {string} to
 * @returns {number}
 */
export const secondsBetween = (from, to) => (Date.parse(to) - Date.parse(from)) / 1000

/**
 * `1 pod`, `2 pods`.
 * @param {number} count
 * @param {string} noun
 * @returns {string}
 */
export const countOf = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`

/**
 * How far the watches can be trusted. A scope that was never listed is not behind.
 * @param {Status['watch']} watch
 * @returns {string}
 */
export function describeWatch({ bad, staleSeconds }) {
  if (bad.length === 0) return 'current'
  return staleSeconds === 0 ? 'incomplete' : `behind for ${shortAge(staleSeconds)}`
}

/**
 * Where the signing keys come from, and how old they are.
 * @param {Status['keys']} keys
 * @returns {string}
 */
export function describeKeys({ ageSeconds, isReviewOnly }) {
  if (isReviewOnly) return 'not served by the cluster: a TokenReview proves each token'
  return ageSeconds === undefined ? 'not fetched yet' : `fetched ${shortAge(ageSeconds)} ago`
}
