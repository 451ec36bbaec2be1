/** Ends the observers and timers that prom-client begins with each set of metrics, and never ends. */

import perfHooks from 'node:perf_hooks'

const { PerformanceObserver, monitorEventLoopDelay } = perfHooks

/**
 * From now on until the returned function is called, which ends what was begun meanwhile. An observer
 * of the garbage collector keeps its metrics, and so a whole world.
 */
export const collectObservers = (): (() => void) => {
  const ends: (() => void)[] = []
  class OwnedObserver extends PerformanceObserver {
    constructor(...args: ConstructorParameters<typeof PerformanceObserver>) {
      super(...args)
      ends.push(() => this.disconnect())
    }
  }
  const monitorOwned: typeof monitorEventLoopDelay = (options) => {
    const histogram = monitorEventLoopDelay(options)
    ends.push(() => histogram.disable())
    return histogram
  }
  Object.assign(perfHooks, {
    PerformanceObserver: OwnedObserver,
    monitorEventLoopDelay: monitorOwned,
  })
  return () => {
    Object.assign(perfHooks, { PerformanceObserver, monitorEventLoopDelay })
    for (const end of ends) end()
  }
}
