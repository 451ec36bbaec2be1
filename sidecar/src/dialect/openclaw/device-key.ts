/** A pod's device at the gateway: derived from a secret seed and the pod's name, never stored. */

import { createHmac, createPrivateKey, createPublicKey, sign } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { boundedLru } from '../../lib/bounded-lru.ts'
import { SEED_BYTES_MIN } from '../../lib/seed.ts'
import { deviceIdOf } from './device-proof.ts'

/** Names a pod across re-creations: a StatefulSet's pod keeps its device. */
export type PodName = {
  readonly namespace: string
  readonly serviceAccount: string
  readonly podName: string
}

export type Device = {
  readonly id: string
  /** The raw key in base64url. */
  readonly publicKey: string
  /** Signs a text; the signature is in base64url. */
  readonly sign: (text: string) => string
}

export type DeviceKeys = (pod: PodName) => Device

const DEVICES_MAX = 4096
/** PKCS #8 around a raw Ed25519 private key (RFC 8410 §7). */
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex')

/**
 * Derives the device of each pod. The worker never learns the key: only the sidecar has the seed.
 */
export function createDeviceKeys(seed: string): DeviceKeys {
  const secret = seed.trim()
  if (Buffer.byteLength(secret) < SEED_BYTES_MIN) {
    throw new Error(`the device seed is shorter than ${SEED_BYTES_MIN} bytes`)
  }
  const devices = new LRUCache<string, Device>(boundedLru(DEVICES_MAX))
  return ({ namespace, serviceAccount, podName }) => {
    // None of the three can contain a slash, so no two pods share a text.
    const text = `${namespace}/${serviceAccount}/${podName}`
    const known = devices.get(text)
    if (known !== undefined) return known
    const device = deviceOf(createHmac('sha256', secret).update(text).digest())
    devices.set(text, device)
    return device
  }
}

function deviceOf(rawPrivateKey: Buffer): Device {
  const pkcs8 = Buffer.concat([PKCS8_PREFIX, rawPrivateKey])
  const privateKey = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
  const publicKey = createPublicKey(privateKey).export({ format: 'jwk' }).x ?? ''
  return {
    id: deviceIdOf(Buffer.from(publicKey, 'base64url')),
    publicKey,
    sign: (text) => sign(null, Buffer.from(text), privateKey).toString('base64url'),
  }
}
