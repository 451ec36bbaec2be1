/** Waits for what another process does and announces to nobody, within a limit of real time. */

const POLL_MS = 10

export const eventually = async (
  what: string,
  withinMs: number,
  isSo: () => Promise<boolean> | boolean,
): Promise<void> => {
  const deadline = performance.now() + withinMs
  while (!(await isSo())) {
    if (performance.now() > deadline)
      throw new Error(`${what} did not come to be in ${withinMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}
