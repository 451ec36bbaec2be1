/** `npm run test:cluster`: the promises, proven on the real API server that `KUBECONFIG` names. */

import { readFile, writeFile } from 'node:fs/promises'
import { today } from '../kit/result-page.ts'
import { runSuites } from '../kit/suite-run.ts'
import { createApi, readVersion } from './api.ts'
import { isMeasured, rewritePage } from './compatibility.ts'
import { readKubeconfig } from './kubeconfig.ts'

const PAGE = new URL('../../docs/compatibility.md', import.meta.url)
/** Leaves docs/compatibility.md as it is. */
const NO_PAGE = '--no-page'

const args = process.argv.slice(2)
await runSuites({
  directory: import.meta.dirname,
  suites: ['rbac', 'revocation', 'tokens', 'watch', 'outage'],
  testLimitMs: 90_000,
  runLimitMs: 6 * 60_000,
  args: args.filter((each) => each !== NO_PAGE),
  async report({ results, diagnostics }) {
    if (args.includes(NO_PAGE)) return
    const api = createApi(readKubeconfig(process.env['KUBECONFIG'] ?? ''))
    const version = await readVersion(api)
    api.close()
    // The last round counts: the first one also warms up.
    const revocation = diagnostics.findLast(isMeasured)
    const page = await readFile(PAGE, 'utf8')
    await writeFile(PAGE, rewritePage(page, { version, date: today(), results, revocation }))
    process.stdout.write(`docs/compatibility.md has the result of ${version}\n`)
  },
})
