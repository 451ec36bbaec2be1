// Waits until this worker hosts no turn: OpenClaw runs each in a process of its own. Its argument is how many seconds of quiet will do.
// The pod's grace bounds the wait.
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'

// After its process the gateway still fetches the result.
const quietS = Number(process.argv[2])

const isTurn = (pid) => {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    return words.some((word) => word.endsWith('/worker.mjs'))
  } catch {
    // It has just ended.
    return false
  }
}

const isBusy = () => readdirSync('/proc').some((name) => /^\d+$/.test(name) && isTurn(name))

let quiet = 0
while (quiet < quietS) {
  await pause(1000)
  quiet = isBusy() ? 0 : quiet + 1
}
