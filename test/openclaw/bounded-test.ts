/** Tests with a limit each: one that hangs fails, and the rest of the suite still runs. */

import { test as unboundedTest, type TestContext } from 'node:test'

type TestBody = (context: TestContext) => void | Promise<void>

/** Longer than any single wait of the suite. */
const TEST_LIMIT_MS = 3 * 60_000
const ABSENT = 'not in this version: '

export const test = (name: string, fn: TestBody): void =>
  void unboundedTest(name, { timeout: TEST_LIMIT_MS }, fn)

/**
 * A test of what not every version has. Where `lack` says that this one does not have it, the test
 * is listed under its name with that reason, and counts neither as run nor as skipped.
 */
export const testUnless = (lack: string | undefined, name: string, fn: TestBody): void => {
  if (lack === undefined) return test(name, fn)
  return void unboundedTest(name, { skip: ABSENT + lack }, fn)
}

/** The same, where it shows only in the middle of the test: in what the product itself said. */
export const absent = (context: TestContext, lack: string): void => context.skip(ABSENT + lack)

/** The reason given to `testUnless`, if a test was left out for one. */
export const absenceOf = (skip: string | boolean | undefined): string | undefined =>
  typeof skip === 'string' && skip.startsWith(ABSENT) ? skip.slice(ABSENT.length) : undefined
