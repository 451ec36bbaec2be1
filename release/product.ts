/** What a release consists of, and where it is published. */

export const REPOSITORY = 'https://github.com/openclaw-k8s/auth-sidecar'
export const REGISTRY = 'ghcr.io/openclaw-k8s'
/** Names below a registry. */
export const IMAGE = 'openclaw-auth-sidecar'
export const CHARTS = 'charts'
export const CHART = 'openclaw'

export const PLATFORMS = ['linux/amd64', 'linux/arm64'] as const
export type Platform = (typeof PLATFORMS)[number]

/** One commit, with all its files in a directory and nothing else. */
export type Source = {
  readonly directory: string
  readonly revision: string
  readonly version: string
  /** When it was committed, in seconds since 1970: the time of all that is made of it. */
  readonly time: number
}
