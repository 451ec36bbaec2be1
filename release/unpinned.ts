/** What a Dockerfile or a workflow takes from others by a name that can move, wherever and however it is written. */

import { parse } from 'yaml'

/** A digest, the commit of an action, or a path in the repository. */
const PINNED = /@sha256:[0-9a-f]{64}$|^[\w-]+\/[\w./-]+@[0-9a-f]{40}$|^\.\//
/** `ghcr.io/owner/name:tag`, under whatever key of a workflow. */
const IMAGE = /^(?:docker:\/\/|(?:[\w-]+\.)+[\w-]+(?::\d+)?\/[\w./-]+[:@])\S+$/
/** Keys of a workflow whose strings are images or actions, without a registry as well. */
const KEYS = ['uses', 'image', 'container']

/** Names without a pin, each once, as they are written there. */
export const findUnpinned = (path: string, text: string): readonly string[] => {
  const names = /\.ya?ml$/.test(path) ? namesOfWorkflow(parse(text)) : namesOfDockerfile(text)
  return [...new Set(names)].filter((name) => !PINNED.test(name))
}

const namesOfWorkflow = (value: unknown, key = ''): readonly string[] => {
  if (typeof value === 'string') {
    // The values of an expression are listed in the workflow too.
    const isName = KEYS.includes(key) && !value.startsWith('${{')
    return isName || IMAGE.test(value) ? [value] : []
  }
  if (Array.isArray(value)) return value.flatMap((each) => namesOfWorkflow(each, key))
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, each]) => namesOfWorkflow(each, name))
}

const namesOfDockerfile = (text: string): readonly string[] => {
  const [, syntax] = /^(?:#.*\n)*#\s*syntax\s*=\s*(\S+)/i.exec(text) ?? []
  const instructions = listInstructions(text)
  const defaults = new Map(instructions.flatMap(defaultsOf))
  const fill = (word: string): string =>
    word.replace(/\$\{?(\w+)\}?/g, (all, name: string) => defaults.get(name) ?? all)
  const names = instructions.flatMap((words, at) => {
    // A stage has its name from the next instruction on.
    const own = ['scratch', ...instructions.slice(0, at).flatMap(stageOf)]
    return takenBy(words)
      .map(fill)
      .filter((name) => !own.includes(name.toLowerCase()) && !/^\d+$/.test(name))
  })
  return syntax === undefined ? names : [syntax, ...names]
}

/** The words of each instruction, which comes first and in capitals; without quotes. */
const listInstructions = (text: string): readonly (readonly string[])[] => {
  const lines = text.replace(/^\s*#.*\n/gm, '').replaceAll('\\\n', ' ')
  return [...lines.matchAll(/^\s*([a-z]+)\s+(.*)$/gim)].map(([, verb = '', rest = '']) => [
    verb.toUpperCase(),
    ...rest.replace(/["']/g, '').trim().split(/\s+/),
  ])
}

const defaultsOf = ([verb, first = '']: readonly string[]): readonly [string, string][] => {
  const [, name, value = ''] = /^(\w+)=(.*)$/.exec(first) ?? []
  return verb === 'ARG' && name !== undefined ? [[name, value]] : []
}

const stageOf = (words: readonly string[]): readonly string[] =>
  words[0] === 'FROM' && /^as$/i.test(words.at(-2) ?? '')
    ? words.slice(-1).map((name) => name.toLowerCase())
    : []

/** The images and downloads of one instruction. */
const takenBy = ([verb, ...words]: readonly string[]): readonly string[] => {
  if (verb === 'FROM') return words.filter((word) => !word.startsWith('--')).slice(0, 1)
  const froms = words.flatMap((word) => /^--(?:mount=.*\b)?from=([^,]+)/.exec(word)?.[1] ?? [])
  const isChecked = words.some((word) => word.startsWith('--checksum='))
  const downloads = verb === 'ADD' && !isChecked ? words.filter((word) => word.includes('://')) : []
  return [...froms, ...downloads]
}
