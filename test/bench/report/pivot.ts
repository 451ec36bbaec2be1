/** Results as tables: one row per case, one column per peer. */

import type { Result } from '../results.ts'

export type Table = {
  readonly name: string
  readonly unit: string
  readonly peers: readonly string[]
  readonly rows: readonly {
    readonly name: string
    /** In the order of `peers`; `undefined` where one was not measured. */
    readonly cells: readonly (Result | undefined)[]
  }[]
}

export const pivot = (results: readonly Result[]): readonly Table[] =>
  [...Map.groupBy(results, ({ table }) => table)].map(([name, all]) => {
    const peers = [...new Set(all.map(({ peer }) => peer))]
    const rows = [...Map.groupBy(all, (result) => result.case)].map(([row, columns]) => ({
      name: row,
      cells: peers.map((peer) => columns.find((column) => column.peer === peer)),
    }))
    return { name, unit: all[0]?.unit ?? '', peers, rows }
  })
