/** Globs of the configuration: `*` stands for any run of characters and `?` for one. */

/** A pattern without wildcards is exact. */
export function globMatcher(pattern: string): (name: string) => boolean {
  if (!/[*?]/.test(pattern)) return (name) => name === pattern
  const source = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll(/\*+/g, '.*')
    .replaceAll('?', '.')
  const regex = new RegExp(`^${source}$`)
  return (name) => regex.test(name)
}
