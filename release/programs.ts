/** The programs that a release runs: Helm where the machine has the right one, the others built. */

import { findHelm } from '../test/deploy/tools.ts'
import { buildGoTool } from './tools.ts'

export type Programs = { readonly cosign: string; readonly crane: string; readonly helm: string }

export const findPrograms = async (): Promise<Programs> => {
  const helm = await findHelm()
  return {
    helm: 'why' in helm ? await buildGoTool('helm') : helm.path,
    crane: await buildGoTool('crane'),
    cosign: await buildGoTool('cosign'),
  }
}
