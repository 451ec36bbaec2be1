/** The API server's URL: where requests go, and under which path. */

/**
 * Origin and target of a request for `path`. The URL may have a path, where a proxy serves several
 * clusters: it comes before every path that is asked for.
 */
export const targetOf = (apiServer: URL, path: string) => ({
  origin: apiServer.origin,
  path: `${prefixOf(apiServer)}${path}`,
})

/** The URL in words, without a trailing slash. */
export const nameOf = (apiServer: URL): string => `${apiServer.origin}${prefixOf(apiServer)}`

const prefixOf = ({ pathname }: URL): string => pathname.replace(/\/+$/, '')
