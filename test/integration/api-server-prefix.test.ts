/** The API server behind a path: every request stays under it, and so does our own token. */

import { test } from 'tap'
import { ROUTES } from '../kit/kube-faults.ts'
import { startRig } from '../kit/rig.ts'
import { waitUntil } from '../kit/wait.ts'
import { closed } from '../kit/worker-client.ts'

const PREFIX = '/k8s/clusters/c-m-abc'

test('behind a proxy that serves several clusters, every request goes to the one in the URL', async (t) => {
  const rig = await startRig({ api: { prefix: PREFIX } })
  t.teardown(() => rig.stop())
  await waitUntil(async () => (await fetch(`${rig.adminUrl}/readyz`)).ok)
  const pod = rig.createPod()
  const worker = await rig.connect({ token: rig.mint({ pod }) })
  t.ok(worker.ok, 'a worker is admitted')
  rig.api.deletePod('openclaw', 'worker-a')
  if (worker.ok) t.equal((await closed(worker.socket)).reason, 'pod_deleted', 'by the watch')
  const asked = ROUTES.filter((route) => rig.api.counts[route] > 0)
  t.strictSame(asked, ['tokenReviews', 'discovery', 'jwks', 'lists', 'watches'])
  t.strictSame(
    rig.api.requests.filter(({ url }) => !url.startsWith(`${PREFIX}/`)),
    [],
    'nothing is sent to another cluster',
  )
})
