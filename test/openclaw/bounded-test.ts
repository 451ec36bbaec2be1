/** Tests with a limit each: one that hangs fails, and the rest of the suite still runs. */

import { test as unboundedTest, type TestContext } from 'node:test'

/** Longer than any single wait of the suite. */
const TEST_LIMIT_MS = 3 * 60_000

export const test = (name: string, fn: (context: TestContext) => void | Promise<void>): void =>
  void unboundedTest(name, { timeout: TEST_LIMIT_MS }, fn)
