/** The ways in which the API server fails in a soak, one after another. */

export const OUTAGES = [
  'cuts every connection',
  'answers 503',
  'never answers',
  'has mute watches',
  'is frozen',
] as const

export type Outage = (typeof OUTAGES)[number]
