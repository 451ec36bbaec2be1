/** The stand-in API server in its own process: pods come and go, and it fails on demand. */

import { startKubeApi } from '../../kit/kube-api.ts'
import type { Outage } from './outages.ts'

export type ApiQuestion =
  | { readonly what: 'create pod'; readonly name: string; readonly address: string }
  | { readonly what: 'delete pod'; readonly name: string }
  | { readonly what: 'begin'; readonly outage: Outage }
  | { readonly what: 'end' }

export type ApiServerReady = {
  readonly url: string
  readonly caFile: string
  readonly tokenFile: string
}

const NAMESPACE = 'openclaw'
const [directory = '.'] = process.argv.slice(2)
const api = await startKubeApi()

/** A token, for a pod that was created. */
const answer = (question: ApiQuestion): string | undefined => {
  switch (question.what) {
    case 'create pod': {
      const { name, address } = question
      const pod = api.createPod({
        namespace: NAMESPACE,
        name,
        serviceAccount: 'openclaw-worker',
        ips: [address],
        nodeName: 'node-1',
      })
      return api.mintToken({ pod, audiences: ['openclaw-gateway'] })
    }
    case 'delete pod':
      api.deletePod(NAMESPACE, question.name, { gracePeriodSeconds: 0 })
      return undefined
    case 'begin':
      begin(question.outage)
      return undefined
    case 'end':
      api.clearFaults()
      return undefined
  }
}

const begin = (outage: Outage): void => {
  switch (outage) {
    case 'cuts every connection':
      api.setFault('*', { kind: 'reset' })
      return api.dropWatches()
    case 'answers 503':
      api.setFault('*', { kind: 'status', status: 503 })
      return api.finishWatches()
    case 'never answers':
      return api.setFault('*', { kind: 'hang' })
    case 'has mute watches':
      return api.blackholeWatches()
    case 'is frozen':
    // A signal from outside does it.
  }
}

process.on('message', ({ id, question }: { id: number; question: ApiQuestion }) => {
  process.send?.({ id, answer: answer(question) })
})
process.on('disconnect', () => process.exit())
const { caFile, tokenFile } = await api.files(directory)
process.send?.({ url: api.url, caFile, tokenFile } satisfies ApiServerReady)
