/** Makes the plots and the pages of docs/performance again from the figures that are kept there. */

import { fileURLToPath } from 'node:url'
import { render } from './report/write.ts'

render(fileURLToPath(new URL('../../docs/performance/', import.meta.url)))
