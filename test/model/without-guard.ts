/** `node --import ./test/model/without-guard.ts TEST` with `WITHOUT_GUARD=NAME`: the code without one guard. */

import { readFileSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { GUARDS } from './guards.ts'

const guard = GUARDS.find(({ name }) => name === process.env['WITHOUT_GUARD'])
if (guard === undefined) throw new Error('WITHOUT_GUARD names no guard')
const { file, from, to } = guard.code

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context)
    if (!url.endsWith(`/${file}`)) return loaded
    const source = readFileSync(new URL(url), 'utf8')
    if (source.split(from).length !== 2) throw new Error(`${file} has not one guard ${guard.name}`)
    return { ...loaded, source: source.replace(from, () => to) }
  },
})
