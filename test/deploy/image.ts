/** `node test/deploy/image.ts`: builds the image where there is a builder, and runs what is in it. */

import { runSuites } from '../kit/suite-run.ts'
import { whyNoImage } from './image-build.ts'

await runSuites({
  directory: import.meta.dirname,
  suites: ['image'],
  testLimitMs: 60_000,
  runLimitMs: 4 * 60_000,
  whyNot: whyNoImage,
})
