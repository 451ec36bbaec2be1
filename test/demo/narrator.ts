/** The demo's voice: headings, facts and checks that fit a terminal of 80 columns. */

export type Narrator = ReturnType<typeof createNarrator>

type Output = { readonly write: (text: string) => unknown }

const WIDTH = 80
const INDENT = '  '
const LABEL_WIDTH = 31
const CHECK_WIDTH = 44
/** The mark of a check, and a space. */
const MARK_WIDTH = 2
const STYLES = { bold: [1, 22], dim: [2, 22], green: [32, 39], red: [31, 39] } as const

export const createNarrator = (output: Output, hasColor: boolean) => {
  let failures = 0
  /** What each chapter has promised, and whether all of it was kept. */
  const chapters: { title: string; checks: number; failures: number }[] = []
  const style = (name: keyof typeof STYLES, text: string) => {
    const [on, off] = STYLES[name]
    return hasColor ? `\u001b[${on}m${text}\u001b[${off}m` : text
  }
  const mark = (isGood: boolean) => (isGood ? style('green', '✓') : style('red', '✗'))
  const line = (text = '') => void output.write(`${text}\n`)

  return {
    get failures() {
      return failures
    },

    chapter(title: string): void {
      chapters.push({ title, checks: 0, failures: 0 })
      line(`\n${style('bold', `${String(chapters.length).padStart(2)}  ${title}`)}\n`)
    },

    say(text: string): void {
      for (const part of wrap(text, WIDTH - INDENT.length)) line(INDENT + part)
    },

    gap: () => line(),

    fact(label: string, value: string): void {
      const [first = '', ...rest] = wrap(value, WIDTH - INDENT.length - LABEL_WIDTH - 1)
      line(`${INDENT}${style('dim', label.padEnd(LABEL_WIDTH))} ${first}`)
      for (const part of rest) line(INDENT + ' '.repeat(LABEL_WIDTH + 1) + part)
    },

    /** Something to copy or to read byte by byte: broken only where it has to be. */
    verbatim(text: string): void {
      for (const part of text.split('\n')) line(style('dim', INDENT + part))
    },

    /** What was promised, what happened, and whether they match. */
    check(what: string, came: string, isAsTold: boolean): void {
      if (!isAsTold) failures += 1
      const chapter = chapters.at(-1)
      if (chapter !== undefined) {
        chapter.checks += 1
        if (!isAsTold) chapter.failures += 1
      }
      const told = isAsTold ? '' : style('red', '   <- not as told')
      const room = WIDTH - INDENT.length - MARK_WIDTH - CHECK_WIDTH - 1
      const isShort = came.length <= room
      line(
        `${INDENT}${mark(isAsTold)} ${what.padEnd(CHECK_WIDTH)} ${isShort ? came + told : ''}`.trimEnd(),
      )
      if (!isShort) line(`${INDENT}${' '.repeat(MARK_WIDTH + 2)}${came}${told}`)
    },

    /** One line for each chapter that promised something. */
    recap(): void {
      for (const { title, checks, failures: failed } of chapters) {
        if (checks > 0) line(`${INDENT}${mark(failed === 0)} ${title}`)
      }
    },
  }
}

/** Breaks at spaces; a word that is wider than the line is cut. */
const wrap = (text: string, width: number): readonly string[] => {
  const lines: string[] = []
  let current = ''
  for (const word of text.split(' ').flatMap((each) => cut(each, width))) {
    if (current !== '' && current.length + 1 + word.length > width) {
      lines.push(current)
      current = word
    } else current = current === '' ? word : `${current} ${word}`
  }
  return [...lines, current]
}

const cut = (word: string, width: number): readonly string[] =>
  word.length <= width ? [word] : [word.slice(0, width), ...cut(word.slice(width), width)]
