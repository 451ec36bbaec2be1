/** A straight line through samples, by least squares: what grows without end shows as its slope. */

export type Sample = { readonly atMs: number; readonly value: number }

/** By how much the value grows in a minute; 0 for fewer than two moments. */
export const slopePerMinute = (samples: readonly Sample[]): number => {
  const mean = (pick: (sample: Sample) => number) =>
    samples.reduce((sum, sample) => sum + pick(sample), 0) / samples.length
  const [meanAt, meanValue] = [mean(({ atMs }) => atMs), mean(({ value }) => value)]
  let [above, below] = [0, 0]
  for (const { atMs, value } of samples) {
    above += (atMs - meanAt) * (value - meanValue)
    below += (atMs - meanAt) ** 2
  }
  return below === 0 ? 0 : (above / below) * 60_000
}
