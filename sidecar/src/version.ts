/** The sidecar's version, as its package says. */

import manifest from '../package.json' with { type: 'json' }

export const version = { version: manifest.version, node: process.version } as const
