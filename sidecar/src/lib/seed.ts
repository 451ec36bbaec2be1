/** How long the seed of the device keys must be. */

/** A shorter seed would let the gateway's users guess the keys of all workers. */
export const SEED_BYTES_MIN = 16
