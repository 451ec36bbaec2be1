/** `node test/deploy/image-archive.ts FILE [COMMIT]`: saves the image, or that of a commit, under the name of `values-local.yaml`. */

import { takeAllAway } from '../kit/leftovers.ts'
import { buildImage, whyNoImage } from './image-build.ts'

const NAME = 'localhost/openclaw-auth-sidecar'

const [file, commit] = process.argv.slice(2)
const why = file === undefined ? 'name the file to write' : whyNoImage()
if (file === undefined || why !== undefined) {
  process.stderr.write(`${why}\n`)
  process.exitCode = 1
} else {
  try {
    const image = await buildImage(commit)
    image.save(file, `${NAME}:${commit ?? 'local'}`)
  } finally {
    await takeAllAway()
  }
}
