/** The log: pino, set up so that no token can appear in it. */

import { pino, type DestinationStream, type Logger } from 'pino'
import { messageOf } from '../lib/errors.ts'

export type Log = Logger

/**
 * Shows only type, message and code of each error in the chain: an error object may contain a
 * request.
 */
const describeError = (error: unknown): unknown =>
  error instanceof Error
    ? {
        type: error.name,
        message: messageOf(error),
        ...('code' in error ? { code: error.code } : {}),
        ...(error.cause === undefined ? {} : { cause: describeError(error.cause) }),
      }
    : error

export function createLog(level: string, stream: DestinationStream): Log {
  return pino(
    {
      level,
      base: { log: 'sidecar' },
      timestamp: () => `,"timestamp":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: describeError },
    },
    stream,
  )
}
