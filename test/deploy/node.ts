/** `npm run test:node`: the chart on a cluster whose nodes run pods and have the images of `values-local.yaml`. */

import { runSuites } from '../kit/suite-run.ts'

await runSuites({
  directory: import.meta.dirname,
  suites: ['node'],
  testLimitMs: 4 * 60_000,
  runLimitMs: 14 * 60_000,
})
