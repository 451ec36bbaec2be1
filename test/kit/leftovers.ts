/** What a run has made outside its process and must take away again, also when it is interrupted. */

type TakeAway = () => Promise<unknown>

const made = new Set<TakeAway>()

/** Resolves with what takes it away; to be called once it is no longer needed. */
export const keepTrackOf = (takeAway: TakeAway): (() => Promise<void>) => {
  const once = async () => {
    if (!made.delete(once)) return
    await takeAway()
  }
  made.add(once)
  return once
}

/** Newest first, since it may stand on what is older; also what is made meanwhile by an interrupted run. */
export const takeAllAway = async (): Promise<void> => {
  for (let newest = last(); newest !== undefined; newest = last()) {
    await Promise.allSettled([newest()])
  }
}

const last = (): TakeAway | undefined => [...made].at(-1)
