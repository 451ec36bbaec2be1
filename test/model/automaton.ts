/** The automaton of one admission: what can be observed of it, and in which order. */

import { EVENTS, PHASES, type AdmissionEvent, type Phase } from './promises.ts'

export type Step = { readonly from: Phase; readonly event: AdmissionEvent; readonly to: Phase }

const HEAD = 'Made by `npm run check:model -- --write`: state, event, next state of one admission.'
const SEPARATOR = ' | '

/** A line for each step, from triples of numbers as the model prints them. */
export const renderAutomaton = (observed: readonly string[]): string => {
  const steps = [...new Set(observed)]
    .map((triple) => triple.split(' ').map(Number))
    .toSorted(([a = 0, b = 0], [c = 0, d = 0]) => a - c || b - d)
    .map(([from = -1, event = -1, to = -1]) => [PHASES[from], EVENTS[event], PHASES[to]])
  return `${HEAD}\n\n${steps.map((step) => step.join(SEPARATOR)).join('\n')}\n`
}

export const parseAutomaton = (text: string): readonly Step[] =>
  text
    .split('\n')
    .filter((line) => line.includes(SEPARATOR))
    .map((line) => {
      const [from = '', event = '', to = ''] = line.split(SEPARATOR)
      return { from: from as Phase, event: event as AdmissionEvent, to: to as Phase }
    })

/** Why the automaton does not accept these events of one admission; `undefined` if it does. */
export const findRejection = (
  steps: readonly Step[],
  events: readonly string[],
): string | undefined => {
  let phase: Phase = 'out'
  for (const [index, event] of events.entries()) {
    const step = steps.find((each) => each.from === phase && each.event === event)
    if (step === undefined) {
      return `${phase}, and it "${event}": ${events.slice(0, index + 1).join(', ')}`
    }
    phase = step.to
  }
  return undefined
}
