/** Durations, sizes and rates of the configuration: text read into numbers and written back. */

import * as z from 'zod'

/** A duration in whole milliseconds. */
export type Milliseconds = number
/** A size in bytes. */
type Bytes = number

type Scale = readonly (readonly [unit: string, factor: number])[]
type Bounds = { readonly min: number; readonly max: number }

/** Largest unit first: values are written back in the largest unit that divides them. */
const DURATIONS: Scale = [
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
  ['ms', 1],
]
const SIZES: Scale = [
  ['GiB', 1_073_741_824],
  ['MiB', 1_048_576],
  ['KiB', 1_024],
]

/** At most twelve digits, so that every factor keeps the product below 2^53. */
const DURATION_PATTERN = /^([0-9]{1,9})(ms|s|m|h)$/
const SIZE_PATTERN = /^([0-9]{1,6})(KiB|MiB|GiB)$/
const RATE_PATTERN = /^([0-9]{1,6})\/s$/

const SECOND = 1_000
const MINUTE = 60 * SECOND

/** Shorthands for bounds, so that the schema reads like the document. */
export const seconds = (count: number): Milliseconds => count * SECOND
export const minutes = (count: number): Milliseconds => count * MINUTE
export const hours = (count: number): Milliseconds => count * 60 * MINUTE

const formatDuration = (value: Milliseconds): string =>
  value === 0 ? '0s' : inUnits(value, DURATIONS, 'ms')

const formatSize = (value: Bytes): string | number =>
  value === 0 ? 0 : (inLargestUnit(value, SIZES) ?? value)

/** A codec of `30s`-like text and milliseconds, both bounds included. */
export function duration(bounds: Bounds) {
  const text = z
    .string({ error: 'A duration must be text with a unit, such as 500ms, 30s, 5m or 1h.' })
    .regex(DURATION_PATTERN, {
      error: 'This is not a duration. Expected a whole number with ms, s, m or h, such as 30s.',
    })
  return z.codec(text, z.number(), {
    decode(value, payload) {
      const result = fromUnits(value, DURATION_PATTERN, DURATIONS)
      const range = `${formatDuration(bounds.min)} to ${formatDuration(bounds.max)}`
      if (!isWithin(result, bounds)) payload.issues.push(outOfRange(value, range))
      return result
    },
    encode: formatDuration,
  })
}

/** A codec of a number of bytes, or `25MiB`-like text, and bytes, both bounds included. */
export function size(bounds: Bounds) {
  const range = `${formatSize(bounds.min)} to ${formatSize(bounds.max)}`
  const outside = { error: `The value is out of range: ${range}.` }
  const form = {
    error:
      'This is not a size. Expected a number of bytes, or a whole number with KiB, MiB or GiB.',
  }
  const count = z.int(form).min(bounds.min, outside).max(bounds.max, outside)
  const input = z.union([count, z.string().regex(SIZE_PATTERN, form)], form)
  return z.codec(input, z.number(), {
    decode(value, payload) {
      const result = typeof value === 'number' ? value : fromUnits(value, SIZE_PATTERN, SIZES)
      if (!isWithin(result, bounds)) payload.issues.push(outOfRange(value, range))
      return result
    },
    encode: formatSize,
  })
}

/** A codec of `20/s`-like text, or 0 for none, and events per second. */
export function rate(bounds: Bounds) {
  const form = {
    error:
      'This is not a rate. Expected a whole number per second, such as 20/s, or 0 to turn it off.',
  }
  const text = z.string().regex(RATE_PATTERN, form)
  const input = z.union([z.literal(0), z.literal('0'), text], form)
  return z.codec(input, z.number(), {
    decode(value, payload) {
      const result = value === 0 ? 0 : Number.parseInt(value, 10)
      const range = `${bounds.min}/s to ${bounds.max}/s`
      if (!isWithin(result, bounds)) payload.issues.push(outOfRange(value, range))
      return result
    },
    encode: (value) => (value === 0 ? 0 : `${value}/s`),
  })
}

function fromUnits(value: string, pattern: RegExp, scale: Scale): number {
  const [, digits = '', unit = ''] = pattern.exec(value) ?? []
  const [, factor = Number.NaN] = scale.find(([name]) => name === unit) ?? []
  return Number(digits) * factor
}

function inLargestUnit(value: number, scale: Scale): string | undefined {
  const fit = scale.find(([, factor]) => value % factor === 0)
  return fit && `${value / fit[1]}${fit[0]}`
}

const inUnits = (value: number, scale: Scale, smallest: string): string =>
  inLargestUnit(value, scale) ?? `${value}${smallest}`

const isWithin = (value: number, bounds: Bounds): boolean =>
  value >= bounds.min && value <= bounds.max

const outOfRange = (input: unknown, range: string) =>
  ({ code: 'custom', input, message: `The value is out of range: ${range}.` }) as const
