/** `npm run test:cluster`: the promises, proven on the real API server that `KUBECONFIG` names. */

import { runSuites } from '../kit/suite-run.ts'

await runSuites({
  directory: import.meta.dirname,
  suites: ['rbac', 'revocation', 'tokens', 'watch', 'outage'],
  testLimitMs: 90_000,
  runLimitMs: 6 * 60_000,
})
