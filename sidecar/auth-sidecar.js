#!/usr/bin/env node
/** The command of a checkout: starts the sources. The image has the same program as one file. */

const NODE_MAJOR_MIN = 26

if (Number.parseInt(process.versions.node, 10) >= NODE_MAJOR_MIN) await import('./src/main.ts')
else {
  process.stderr.write(
    `auth-sidecar needs Node ${NODE_MAJOR_MIN} or newer, and this is ${process.version}. In a ` +
      'checkout `npm ci` installs it, and `npx auth-sidecar` uses it.\n',
  )
  process.exitCode = 69
}
