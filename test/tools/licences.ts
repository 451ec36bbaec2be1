/** The licences of what the lockfile installs: allowed or not, and the table of docs/licences.md. */

import { readFileSync, writeFileSync } from 'node:fs'
import { listPackages, readLockfile, type Package } from './lockfile.ts'

/** What may be part of the image: permissive, and satisfied by passing on its text. */
const SHIPPED = ['Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'BlueOak-1.0.0', 'ISC', 'MIT']
/** What may build and test it, besides. */
const TOOLS = [...SHIPPED, '0BSD', 'CC-BY-3.0', 'CC0-1.0']
/** Versions of packages whose manifest names no licence, and what their licence file says. */
const READ_BY_HAND: Readonly<Record<string, string>> = { 'jsonc-simple-parser@3.0.0': 'MIT' }

const PAGE = new URL('../../docs/licences.md', import.meta.url)
const [BEGIN, END] = ['<!-- licences: generated -->', '<!-- /licences -->']

/** What is wrong with the licence of a package; `undefined` if nothing is. */
export const findLicenceObjection = (found: Package): string | undefined => {
  const { name, version, isProduction } = found
  const licence = licenceOf(found)
  const allowed = isProduction ? SHIPPED : TOOLS
  // A choice inside parentheses is none of the whole.
  const choices = /[()]/.test(licence) ? [licence] : licence.split(' OR ')
  // An expression with AND or WITH is none of the allowed ones.
  if (choices.some((each) => allowed.includes(each))) return undefined
  const what = licence === '' ? 'no licence' : `the licence ${licence}`
  return `${name} ${version} has ${what}, which is not allowed ${isProduction ? 'in the image' : 'for tools'}`
}

const licenceOf = ({ name, version, licence }: Package): string =>
  licence === '' ? (READ_BY_HAND[`${name}@${version}`] ?? '') : licence

/** The page, with its table as the lockfile has it now. */
export const fillLicences = (page: string, packages: readonly Package[]): string => {
  const shipped = packages.filter(({ isProduction }) => isProduction)
  const rows = shipped.map((each) => `| ${each.name} | ${each.version} | ${licenceOf(each)} |`)
  const table = ['| package | version | licence |', '|---|---|---|', ...rows].join('\n')
  const [before, rest] = page.split(BEGIN)
  const [, after] = (rest ?? '').split(END)
  if (after === undefined) throw new Error(`docs/licences.md has no ${BEGIN} … ${END}`)
  return `${before}${BEGIN}\n${table}\n${END}${after}`
}

const main = (): void => {
  const packages = listPackages(readLockfile())
  writeFileSync(PAGE, fillLicences(readFileSync(PAGE, 'utf8'), packages))
  const objections = packages.flatMap((each) => findLicenceObjection(each) ?? [])
  process.stdout.write(
    [...objections, `${packages.length} packages, ${objections.length} not allowed`, ''].join('\n'),
  )
  process.exitCode = objections.length === 0 ? 0 : 1
}

if (import.meta.main) main()
