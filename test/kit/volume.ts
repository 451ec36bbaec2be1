/** A volume as the kubelet writes it: `..data` points to the version in force, and is swapped whole. */

import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

type Files = Readonly<Record<string, string>>

/** Writes the first version and resolves with the way to swap in the next one. */
export const mountVolume = async (directory: string, files: Files) => {
  let version = 0
  const swap = async (next: Files): Promise<void> => {
    version += 1
    const fresh = join(directory, `..v${version}`)
    await mkdir(fresh)
    for (const [name, text] of Object.entries(next)) await writeFile(join(fresh, name), text)
    await symlink(`..v${version}`, join(directory, '..data_tmp'))
    await rename(join(directory, '..data_tmp'), join(directory, '..data'))
    if (version > 1) await rm(join(directory, `..v${version - 1}`), { recursive: true })
  }
  await swap(files)
  for (const name of Object.keys(files)) {
    await symlink(join('..data', name), join(directory, name))
  }
  return swap
}
