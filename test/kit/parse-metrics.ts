/** Reads the text of a scrape. */

/** Values by series, as `name{label="value"}`; the names lose `prefix` where they have it. */
export const parseMetrics = (text: string, prefix = ''): ReadonlyMap<string, number> =>
  new Map(
    text
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => {
        const at = line.lastIndexOf(' ')
        const from = line.startsWith(prefix) ? prefix.length : 0
        return [line.slice(from, at), Number(line.slice(at + 1))] as const
      }),
  )
