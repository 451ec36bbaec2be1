/** The check of commit subjects holds new commits to the rules, and no older ones. */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { test } from 'tap'
import { findObjection, listSubjects } from '../tools/commit-subjects.ts'

const git = (cwd: string, ...args: readonly string[]): void => {
  const author = ['-c', 'user.name=a', '-c', 'user.email=a@b.example', '-c', 'commit.gpgsign=false']
  // Nothing of the environment: in a git hook, GIT_DIR would name the real repository.
  const env = { PATH: process.env['PATH'], HOME: cwd }
  execFileSync('git', [...author, ...args], { cwd, env, stdio: 'pipe' })
}

const commit = (cwd: string, subject: string, file?: string): void => {
  if (file !== undefined) writeFileSync(join(cwd, file), subject)
  git(cwd, 'add', '-A')
  git(cwd, 'commit', '--quiet', '--allow-empty', '--message', subject)
}

test('a subject is short, without a prefix and without a full stop', async (t) => {
  const good = ['Refuse a token whose pod is gone', 'x'.repeat(72), 'ü'.repeat(72)]
  for (const subject of good) t.equal(findObjection(subject), undefined, subject)
  const bad = [
    ['x'.repeat(73), '73 characters, at most 72'],
    ['fix: the leak', 'has a prefix'],
    ['Fix(tunnel)!: the leak', 'has a prefix'],
    ['[tunnel] Fix the leak', 'has a prefix'],
    ['fixup! Fix the leak', 'has a prefix'],
    ['Fix the leak.', 'ends with a full stop'],
  ] as const
  for (const [subject, objection] of bad) t.equal(findObjection(subject), objection, subject)
})

test('commits before the check, and of branches that began before it, are left alone', async (t) => {
  const root = t.testdir({})
  git(root, 'init', '--quiet', '--initial-branch', 'main')
  commit(root, 'an old one', 'old')
  git(root, 'branch', 'parallel')
  commit(root, 'the check', 'check.ts')
  commit(root, 'a new one', 'new')
  git(root, 'checkout', '--quiet', 'parallel')
  commit(root, 'a parallel one', 'parallel')
  git(root, 'checkout', '--quiet', 'main')
  git(root, 'merge', '--quiet', '--no-ff', '--message', 'a merge', 'parallel')
  const subjectsOf = (directory: string, file: string) =>
    listSubjects(directory, file).map(([, subject]) => subject)
  t.strictSame(subjectsOf(root, 'check.ts'), ['a merge', 'a new one'])
  t.strictSame(subjectsOf(root, 'never-there.ts'), [], 'without the check there is nothing to hold')

  const clone = join(t.testdirName, 'clone')
  for (const [depth, subjects] of [
    ['1', []],
    ['2', ['a merge']],
  ] as const) {
    const name = `${clone}-${depth}`
    git(root, 'clone', '--quiet', '--depth', depth, pathToFileURL(root).href, name)
    t.strictSame(subjectsOf(name, 'check.ts'), subjects, `a clone of depth ${depth}`)
  }
})
