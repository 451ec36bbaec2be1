/** Whether a version of Node has the fixes of the last security release that was known when this was written. */

/**
 * By release line, its first version with these fixes. `npm run pin` reads them from Node's own list of
 * releases. https://nodejs.org/en/blog/vulnerability/july-2026-security-releases
 */
export const SECURITY_RELEASES: Readonly<Record<number, string>> = {
  22: '22.23.2',
  24: '24.18.1',
  26: '26.5.1',
}

/** Why `version`, such as `v26.4.0`, is too old, in words; `undefined` if it is not known to be. */
export function findNodeObjection(version: string): string | undefined {
  const parts = partsOf(version)
  const [line = 0] = parts
  const floor = SECURITY_RELEASES[line]
  if (floor !== undefined) {
    if (!isOlder(parts, partsOf(floor))) return undefined
    return `Node.js ${version} lacks the security fixes of v${floor}`
  }
  const newest = Math.max(...Object.keys(SECURITY_RELEASES).map(Number))
  return line > newest ? undefined : `Node.js ${version} gets no security fixes any more`
}

/** How to have the fixes. */
export const NODE_REMEDY = "Update the sidecar's image, or the Node.js that runs it."

const partsOf = (version: string): readonly number[] =>
  version
    .replace(/^v/, '')
    .split('.', 3)
    .map((part) => Number.parseInt(part, 10))

function isOlder(one: readonly number[], other: readonly number[]): boolean {
  const at = one.findIndex((part, index) => part !== other[index])
  return at !== -1 && (one[at] ?? 0) < (other[at] ?? 0)
}
