/** Text options of the configuration: names and globs, header names, file paths, lists of strings. */

import * as z from 'zod'
import { DEFAULT_CREDENTIAL_HEADER, HEADER_PATTERN, RESERVED_HEADER } from './credential-header.ts'

/**
 * DNS-1123 with `*` and `?` as wildcards. The repeats are bounded and no lookaround is used: the
 * patterns are published in the JSON Schema, and Helm reads them with RE2.
 */
const LABEL_PATTERN = /^[a-z0-9*?]([-a-z0-9*?]{0,61}[a-z0-9*?])?$/
const SUBDOMAIN_PATTERN =
  /^[a-z0-9*?]([-a-z0-9*?]{0,251}[a-z0-9*?])?(\.[a-z0-9*?]([-a-z0-9*?]{0,251}[a-z0-9*?])?)*$/

const NAME_REASON =
  'This is not a Kubernetes name or a glob: use a-z, 0-9 and -, with * and ? as wildcards.'

/** The name of a namespace or ServiceAccount, exact or as a glob. */
export const namePattern = (kind: 'namespace' | 'serviceAccount') =>
  kind === 'namespace'
    ? z.string().regex(LABEL_PATTERN, { error: NAME_REASON })
    : z.string().max(253, { abort: true }).regex(SUBDOMAIN_PATTERN, { error: NAME_REASON })

/** A nonempty list of printable strings without spaces. */
export const stringList = (itemsMax: number, lengthMax: number) =>
  z
    .array(
      z
        .string()
        .min(1)
        .max(lengthMax, { abort: true })
        .regex(/^[!-~]+$/, { error: 'Only printable ASCII without spaces is allowed.' }),
    )
    .min(1)
    .max(itemsMax)

export const filePath = () =>
  z
    .string()
    .min(1)
    .max(4_096)
    .regex(/^\P{Cc}+$/u, { error: 'A file name must not contain control characters.' })

export const credentialHeader = () =>
  z
    .string()
    .max(64, { abort: true })
    .regex(HEADER_PATTERN, { error: 'This is not a header name.' })
    .refine((name) => !RESERVED_HEADER.test(name), {
      error: 'This header already has another meaning in the handshake.',
      params: { hint: `Choose another name, such as ${DEFAULT_CREDENTIAL_HEADER}.` },
    })
