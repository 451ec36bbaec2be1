/** What a run has created outside its process and must remove again, even when it is interrupted. */

type TakeAway = () => Promise<unknown>

const made = new Set<TakeAway>()

/** Resolves with the function that removes it; call it when it is not needed any more. */
export const keepTrackOf = (takeAway: TakeAway): (() => Promise<void>) => {
  const once = async () => {
    if (!made.delete(once)) return
    await takeAway()
  }
  made.add(once)
  return once
}

/** Newest first, since newer things can depend on older ones; includes what an interrupted run still creates. */
export const takeAllAway = async (): Promise<void> => {
  for (let newest = last(); newest !== undefined; newest = last()) {
    await Promise.allSettled([newest()])
  }
}

const last = (): TakeAway | undefined => [...made].at(-1)
