/** Numbers and ages in few characters, for the status page and the `status` command. */

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
