/** The model's section of docs/reliability.md, made by a run. */

import { table, today } from '../kit/result-page.ts'
import { parseAutomaton } from './automaton.ts'
import type { Guard } from './guards.ts'
import { LIVENESS, PROMISES, type Exploration } from './promises.ts'
import type { Verification } from './spin.ts'

/** What was found without a guard: the broken promise and the counterexample. */
export type Found = {
  readonly guard: Guard
  readonly promise: string
  readonly story: readonly string[]
}

const BEGIN = '<!-- begin model -->'
const END = '<!-- end model -->'
/** A cycle is told once: its beginning says enough. */
const STORY_LINES_MAX = 24

export const thousands = (count: number): string => count.toLocaleString('en')

export const replaceSection = (page: string, section: string): string => {
  const [before, rest] = cut(page, BEGIN)
  const [, after] = cut(rest, END)
  return `${before}${BEGIN}\n\n${section}\n\n${END}${after}`
}

const cut = (text: string, mark: string): readonly [string, string] => {
  const at = text.indexOf(mark)
  if (at === -1) throw new Error(`docs/reliability.md has no ${mark}`)
  return [text.slice(0, at), text.slice(at + mark.length)]
}

type Explored = Exploration & Verification

export const renderSection = (
  explored: readonly Explored[],
  found: readonly Found[],
  automaton: string,
): string => {
  const promises = [...Object.entries(PROMISES), ['liveness', LIVENESS] as const]
  return [
    `${today()}, SPIN. Every state was seen, and none breaks a promise:`,
    table(
      ['world', 'states', 'steps', 'seconds', 'memory'],
      explored.map(({ name, states, transitions, seconds, memoryMiB }) => [
        name,
        thousands(states),
        thousands(transitions),
        seconds.toFixed(1),
        `${Math.round(memoryMiB)} MiB`,
      ]),
    ),
    'A world with fairness is for the promise called liveness, the others are for the rest:',
    table(
      ['', 'promise'],
      promises.map(([number, says]) => [number, says]),
    ),
    'Each guard is left out of the model, and the model then breaks a promise. The test plays the same on the ' +
      'code, and fails without the guard:',
    table(
      ['guard', 'breaks', 'test'],
      found.map(({ guard, promise }) => [guard.says, promise, `"${guard.test.name}"`]),
    ),
    `An admission that is seen from outside takes one of ${parseAutomaton(automaton).length} steps ` +
      '(`test/model/automaton.txt`). The counterexamples, one of the shortest each:',
    ...found.map(tell),
  ].join('\n\n')
}

const tell = ({ guard, story }: Found): string => {
  const told = story.slice(0, STORY_LINES_MAX)
  const more = story.length > told.length ? ', and so on' : ''
  return `- Without "${guard.says}": ${told.join('; ')}${more}.`
}
