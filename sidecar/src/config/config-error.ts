/** The error that lists everything that is wrong with a configuration, for its author. */

/** One thing to fix. `path` is as the user wrote it; '' means the document itself. */
export type Problem = {
  readonly path: string
  /** `file:line:column`, or the variable or flag the value came from. */
  readonly where?: string
  readonly reason: string
  readonly hint?: string
}

const SHOWN_PROBLEMS_MAX = 20

/** The configuration cannot be used. `toString` returns the complete message for the user. */
export class ConfigError extends Error {
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[]) {
    super(describeProblems(problems))
    this.name = 'ConfigError'
    this.problems = problems
  }

  override toString(): string {
    return this.message
  }
}

function describeProblems(problems: readonly Problem[]): string {
  const count = problems.length === 1 ? 'a problem' : `${problems.length} problems`
  const lines = problems.slice(0, SHOWN_PROBLEMS_MAX).flatMap(describeProblem)
  const left = problems.length - SHOWN_PROBLEMS_MAX
  if (left > 0) lines.push(`  … and ${left} more`)
  return [`The configuration has ${count}:`, ...lines].join('\n')
}

function describeProblem({ path, where, reason, hint }: Problem): string[] {
  const place = [path, where === undefined ? '' : `(${where})`].filter((part) => part !== '')
  const head = place.length === 0 ? reason : `${place.join(' ')}: ${reason}`
  return hint === undefined ? [`  ${head}`] : [`  ${head}`, `    Hint: ${hint}`]
}
