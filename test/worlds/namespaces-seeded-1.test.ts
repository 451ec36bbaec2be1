/** The same in worlds of five namespaces, which a seed repeats: part 1 of 4, so that they run at once. */

import { test } from 'tap'
import { liveSeeded } from '../kit/namespace-worlds.ts'

test('of five namespaces the healthy ones have all they need, whatever the others lack', (t) =>
  liveSeeded(t, 0, 25))
