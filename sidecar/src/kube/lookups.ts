/** Lookups: one pod or one ServiceAccount, as the API server has it now. */

import { Fault } from '../fault.ts'
import type { KubeClient } from './client.ts'
import { readAccounts, readPod, type WatchedAccount, type WatchedPod } from './pod.ts'

/**
 * Each returns `undefined` if the object does not exist, and throws a `Fault` without an answer.
 */
export function createLookups(client: Pick<KubeClient, 'request'>, deadlineMs: number) {
  const get = (path: string) => client.request({ method: 'GET', path, deadlineMs })
  return {
    async getPod(namespace: string, name: string): Promise<WatchedPod | undefined> {
      const path = `/api/v1/namespaces/${namespace}/pods/${name}`
      const { status, body } = await get(path)
      return status === 404 ? undefined : readAnswer(path, () => readPod(body))
    },

    /** A list of one: the watch needs the `list` right anyway, and so nothing needs `get`. */
    async getAccount(namespace: string, name: string): Promise<WatchedAccount | undefined> {
      const query = new URLSearchParams({ fieldSelector: `metadata.name=${name}` }).toString()
      const path = `/api/v1/namespaces/${namespace}/serviceaccounts?${query}`
      const { body } = await get(path)
      const accounts = readAnswer(path, () => readAccounts(body))
      return accounts.find((account) => account.name === name)
    },
  }
}

function readAnswer<T>(path: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    throw new Fault('pod_unconfirmed', `The answer to GET ${path} cannot be read.`, { cause })
  }
}
