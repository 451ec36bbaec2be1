/** The shipped rules at another speed: each time in them divided by one factor. */

/** An hour of the rules passes in a minute. */
export const FACTOR = 60
/** Monitors scrape every 30 s by default. */
export const INTERVAL = '500ms'

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

const scaled = (count: string, unit: string): string =>
  `${(Number(count) * UNIT_MS[unit as keyof typeof UNIT_MS]) / FACTOR}ms`

/**
 * Divides each `for`, each range and each threshold that is a time: how old, how stale, how long
 * until an end. Thresholds of latency, of rates and of counts stay as they are.
 */
export const scaleRules = (text: string): string =>
  text
    .replaceAll(/\bfor: (\d+)(ms|s|m|h|d)\b/g, (_, count, unit) => `for: ${scaled(count, unit)}`)
    .replaceAll(/\[(\d+)(ms|s|m|h|d)\]/g, (_, count, unit) => `[${scaled(count, unit)}]`)
    .replaceAll(
      /((?:_age_seconds|_stale_seconds|- time\(\)) [<>] )([1-9]\d*)/g,
      (_, before, seconds) => `${before}${Number(seconds) / FACTOR}`,
    )
