/** `npm run test:node`: the chart, and an existing gateway, on a cluster whose nodes run pods and have the images of `values-local.yaml`. */

import { runSuites } from '../kit/suite-run.ts'

await runSuites({
  directory: import.meta.dirname,
  suites: ['node', 'existing-gateway'],
  testLimitMs: 4 * 60_000,
  runLimitMs: 18 * 60_000,
})
