/** The demo's voice: headings, facts and checks that fit a terminal of 100 columns. */

export type Narrator = ReturnType<typeof createNarrator>

type Output = { readonly write: (text: string) => unknown }

const WIDTH = 100
const INDENT = '    '
const LABEL_WIDTH = 30
const CHECK_WIDTH = 44
const STYLES = { bold: [1, 22], dim: [2, 22], green: [32, 39], red: [31, 39] } as const

export const createNarrator = (output: Output, hasColor: boolean) => {
  let chapters = 0
  let failures = 0
  const style = (name: keyof typeof STYLES, text: string) => {
    const [on, off] = STYLES[name]
    return hasColor ? `\u001b[${on}m${text}\u001b[${off}m` : text
  }
  const line = (text = '') => void output.write(`${text}\n`)

  return {
    get failures() {
      return failures
    },

    chapter(title: string): void {
      chapters += 1
      line(`\n${style('bold', `${String(chapters).padStart(2)}  ${title}`)}\n`)
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
      const mark = isAsTold ? style('green', '✓') : style('red', '✗')
      const told = isAsTold ? '' : style('red', '   <- not as told')
      line(`${INDENT}${mark} ${what.padEnd(CHECK_WIDTH)} ${came}${told}`)
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
