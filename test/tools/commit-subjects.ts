/** Checks the subjects of the commits made since this file came into the repository. */

import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const THIS_FILE = 'test/tools/commit-subjects.ts'
const SUBJECT_LENGTH_MAX = 72
const PREFIX = /^(\[|[a-z]+(\([^)]*\))?!?: |(fixup|squash|amend)! )/i

/** What is wrong with a subject; `undefined` if nothing is. */
export const findObjection = (subject: string): string | undefined => {
  const { length } = subject
  if (length > SUBJECT_LENGTH_MAX) return `${length} characters, at most ${SUBJECT_LENGTH_MAX}`
  if (PREFIX.test(subject)) return 'has a prefix'
  if (subject.endsWith('.')) return 'ends with a full stop'
  return undefined
}

/**
 * The commits on top of the one that added `file`. Those of branches that started before it are
 * left out, although a merge brings them later: their authors could not know the check. In a shallow
 * clone the oldest commit counts as the one that added everything.
 */
export const listSubjects = (root: string, file: string): readonly (readonly string[])[] => {
  const git = (...args: readonly string[]) =>
    execFileSync('git', args, { cwd: root, encoding: 'utf8' }).split('\n').filter(Boolean)
  const base = git('log', '--diff-filter=A', '--format=%H', '--', file).at(-1)
  if (base === undefined) return []
  const range = ['--ancestry-path', `${base}..HEAD`]
  return git('log', '--format=%h %s', ...range).map((line) => {
    const end = line.indexOf(' ')
    return [line.slice(0, end), line.slice(end + 1)]
  })
}

const main = (): void => {
  const subjects = listSubjects(ROOT, THIS_FILE)
  const bad = subjects.flatMap(([commit = '', subject = '']) => {
    const objection = findObjection(subject)
    return objection === undefined ? [] : [`${commit} ${objection}: ${subject}\n`]
  })
  process.stdout.write(`${bad.join('')}${subjects.length} subjects, ${bad.length} to correct\n`)
  process.exitCode = bad.length === 0 ? 0 : 1
}

if (import.meta.main) main()
