/** `node test/deploy/image-archive.ts FILE`: builds the image and saves it as `values-local.yaml` calls it. */

import { takeAllAway } from '../kit/leftovers.ts'
import { buildImage, whyNoImage } from './image-build.ts'

const NAME = 'localhost/openclaw-auth-sidecar:local'

const [file] = process.argv.slice(2)
const why = file === undefined ? 'name the file to write' : whyNoImage()
if (file === undefined || why !== undefined) {
  process.stderr.write(`${why}\n`)
  process.exitCode = 1
} else {
  try {
    const image = await buildImage()
    image.save(file, NAME)
  } finally {
    await takeAllAway()
  }
}
