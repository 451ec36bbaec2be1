/** The files of the status page. The bundle has their texts in place of this module's reads. */

import { readFileSync } from 'node:fs'

const read = (name: string): string =>
  readFileSync(new URL(`page/${name}`, import.meta.url), 'utf8')

/** By path. They are part of the program, like its modules. */
export const PAGE = {
  '/': { type: 'text/html; charset=utf-8', text: read('status.html') },
  '/status.css': { type: 'text/css; charset=utf-8', text: read('status.css') },
  '/status.js': { type: 'text/javascript; charset=utf-8', text: read('status.js') },
  '/words.js': { type: 'text/javascript; charset=utf-8', text: read('words.js') },
} as const
