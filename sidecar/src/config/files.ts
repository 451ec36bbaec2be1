/** Reads the files a configuration names, and reports early which of them cannot be used. */

import { createPrivateKey } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { readCertificates } from '../lib/certificates.ts'
import { SEED_BYTES_MIN } from '../lib/seed.ts'
import type { Problem } from './config-error.ts'
import type { Config } from './schema.ts'

/** Reads a whole file of at most `bytesMax` (default 1 MiB) as UTF-8, or throws. */
export type ReadFile = (path: string, bytesMax?: number) => string

const FILE_BYTES_MAX = 1_048_576

/** Reading a pipe means waiting for its writer, which would block the event loop. */
class NotAFileError extends Error {}

/** The `ReadFile` of a real process: never more than `bytesMax`, even of an endless device. */
export function readFileBounded(path: string, bytesMax = FILE_BYTES_MAX): string {
  // Without O_NONBLOCK it would block to open a pipe that nobody writes to.
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    if (fstatSync(descriptor).isFIFO()) throw new NotAFileError('This is a pipe, not a file.')
    const buffer = Buffer.alloc(bytesMax + 1)
    let length = 0
    while (length < buffer.length) {
      const count = readSync(descriptor, buffer, length, buffer.length - length, null)
      if (count === 0) break
      length += count
    }
    if (length > bytesMax) {
      throw new RangeError(`The file is larger than ${describeSize(bytesMax)}.`)
    }
    return buffer.toString('utf8', 0, length)
  } finally {
    closeSync(descriptor)
  }
}

const describeSize = (bytes: number): string =>
  bytes < FILE_BYTES_MAX ? `${bytes / 1024} KiB` : `${bytes / FILE_BYTES_MAX} MiB`

/** Why a file could not be read, in words. */
export function readProblem(error: unknown): string {
  if (error instanceof RangeError || error instanceof NotAFileError) return error.message
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
  return REASONS.get(code) ?? `The file cannot be read (${code}).`
}

const REASONS = new Map([
  ['ENOENT', 'The file does not exist.'],
  ['EACCES', 'The file cannot be read: permission denied.'],
  ['EISDIR', 'This is a directory, not a file.'],
])

type Check = {
  readonly path: string
  readonly file: string | undefined
  readonly holds: 'certificates' | 'key' | 'text' | 'seed'
}

/**
 * Checks every file that was named explicitly; defaults, such as in-cluster files, need not exist yet.
 * The problems never quote a file's content.
 */
export function checkFiles(
  config: Config,
  explicitPaths: ReadonlySet<string>,
  readFile: ReadFile,
): readonly Problem[] {
  const named = filesOf(config).filter(({ path }) => explicitPaths.has(path))
  const problems = named.flatMap((check) => checkFile(check, readFile))
  const isPairReadable = problems.every(({ path }) => !PAIR_PATHS.includes(path))
  return isPairReadable ? [...problems, ...checkPair(config, readFile)] : problems
}

const PAIR_PATHS: readonly string[] = ['listen.tls.certFile', 'listen.tls.keyFile']

const filesOf = ({ listen, gateway, kubernetes }: Config): readonly Check[] => [
  { path: 'listen.tls.certFile', file: listen.tls?.certFile, holds: 'certificates' },
  { path: 'listen.tls.keyFile', file: listen.tls?.keyFile, holds: 'key' },
  { path: 'listen.tls.clientCaFile', file: listen.tls?.clientCaFile, holds: 'certificates' },
  { path: 'gateway.auth.secretFile', file: gateway.auth.secretFile, holds: 'text' },
  { path: 'gateway.deviceSeedFile', file: gateway.deviceSeedFile, holds: 'seed' },
  { path: 'kubernetes.caFile', file: kubernetes.caFile, holds: 'certificates' },
  { path: 'kubernetes.tokenFile', file: kubernetes.tokenFile, holds: 'text' },
]

function checkFile({ path, file, holds }: Check, readFile: ReadFile): Problem[] {
  if (file === undefined) return []
  let text: string
  try {
    text = readFile(file)
  } catch (error) {
    const hint = 'Mount the file there, or correct the path.'
    return [{ path, where: file, reason: readProblem(error), hint }]
  }
  const fault = CONTENT_CHECKS[holds](text)
  return fault === undefined ? [] : [{ path, where: file, ...fault }]
}

type Fault = { readonly reason: string; readonly hint: string }

const CONTENT_CHECKS: Readonly<Record<Check['holds'], (text: string) => Fault | undefined>> = {
  certificates: (text) =>
    readCertificates(text) === undefined
      ? {
          reason: 'This is not a PEM file with certificates.',
          hint: 'Name a PEM file with certificates.',
        }
      : undefined,
  key: (text) =>
    attempt(() => createPrivateKey(text)) === undefined
      ? {
          reason: 'This is not a PEM private key.',
          hint: 'Name a PEM file with an unencrypted private key.',
        }
      : undefined,
  text: findEmptiness,
  seed: (text) =>
    findEmptiness(text) ??
    (Buffer.byteLength(text.trim()) < SEED_BYTES_MIN
      ? {
          reason: `The seed is shorter than ${SEED_BYTES_MIN} bytes.`,
          hint: 'Write 32 random bytes to the file, in base64 or hexadecimal.',
        }
      : undefined),
}

function findEmptiness(text: string): Fault | undefined {
  return text.trim() === ''
    ? { reason: 'The file is empty.', hint: 'Write the file, or mount it.' }
    : undefined
}

/** The key must be the certificate's, or every TLS handshake would fail. */
function checkPair({ listen }: Config, readFile: ReadFile): Problem[] {
  const { tls } = listen
  if (tls === undefined) return []
  const fits = attempt(() => {
    const [certificate] = readCertificates(readFile(tls.certFile)) ?? []
    return certificate?.checkPrivateKey(createPrivateKey(readFile(tls.keyFile)))
  })
  if (fits === true) return []
  return [
    {
      path: 'listen.tls.keyFile',
      where: tls.keyFile,
      reason: 'The private key does not match the certificate.',
      hint: 'Name a certificate and its own private key.',
    },
  ]
}

function attempt<T>(run: () => T): T | undefined {
  try {
    return run()
  } catch {
    return undefined
  }
}
