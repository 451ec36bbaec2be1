/** Recognizes what a plain port is sent in place of HTTP: by a load balancer, or by a client of TLS. */

import type { Code } from '../denial.ts'

/** PROXY protocol, version 1: a line of text (haproxy's proxy-protocol.txt §2.1). */
const PROXY_V1 = Buffer.from('PROXY ')
/** Version 2: twelve bytes that no request begins with (§2.2). */
const PROXY_V2 = Buffer.from('\r\n\r\n\0\r\nQUIT\n')
/** A handshake record of any version of TLS (RFC 8446 §5.1). */
const TLS_HANDSHAKE = Buffer.from([0x16, 0x03])

const PREAMBLES: readonly (readonly [Buffer, Code])[] = [
  [PROXY_V1, 'proxy_protocol_unexpected'],
  [PROXY_V2, 'proxy_protocol_unexpected'],
  [TLS_HANDSHAKE, 'tls_unexpected'],
]

/** `first` is the first chunk of a connection. None of these is HTTP: the code only says why. */
export const findPreamble = (first: Buffer): Code | undefined =>
  PREAMBLES.find(([preamble]) => first.subarray(0, preamble.length).equals(preamble))?.[1]
