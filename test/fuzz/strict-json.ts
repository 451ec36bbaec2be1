/** A JSON parser to the letter of RFC 8259 and I-JSON: the second opinion on what a token says. */

/** Members of an object in a map, so that no name can mean a prototype's. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export type JsonObject = ReadonlyMap<string, Json>

export class NotStrict extends Error {}

const NUMBER = /-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y
const BLANKS = /[ \t\n\r]*/y
const STRING = /"((?:[^"\\\p{Cc}]|[\u007f-\u009f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*)"/uy
const ESCAPE = /\\(?:u([0-9A-Fa-f]{4})|(.))/g
const ESCAPED: Readonly<Record<string, string>> = {
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
}

/** Throws `NotStrict` for anything two parsers could read differently. */
export const parseStrictly = (bytes: Buffer): Json => {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new NotStrict('not UTF-8')
  }
  const parser = new Parser(text)
  const value = parser.value()
  parser.end()
  return value
}

class Parser {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  value(): Json {
    this.#skipBlanks()
    const value = this.#bareValue()
    this.#skipBlanks()
    return value
  }

  end(): void {
    if (this.#at !== this.#text.length) throw new NotStrict(`something at ${this.#at}`)
  }

  #bareValue(): Json {
    if (this.#takes('{')) return this.#members()
    if (this.#takes('[')) return this.#items()
    if (this.#text[this.#at] === '"') return this.#string()
    if (this.#takes('null')) return null
    if (this.#takes('true')) return true
    if (this.#takes('false')) return false
    return Number(this.#match(NUMBER)[0])
  }

  #members(): JsonObject {
    const members = new Map<string, Json>()
    this.#skipBlanks()
    if (this.#takes('}')) return members
    do {
      this.#skipBlanks()
      const name = this.#string()
      if (members.has(name)) throw new NotStrict(`${JSON.stringify(name)} twice`)
      this.#skipBlanks()
      this.#expect(':')
      members.set(name, this.value())
    } while (this.#takes(','))
    this.#expect('}')
    return members
  }

  #items(): readonly Json[] {
    const items: Json[] = []
    this.#skipBlanks()
    if (this.#takes(']')) return items
    do items.push(this.value())
    while (this.#takes(','))
    this.#expect(']')
    return items
  }

  #string(): string {
    const [, raw = ''] = this.#match(STRING)
    return raw.replaceAll(ESCAPE, (_, hex: string | undefined, letter: string) =>
      hex === undefined
        ? (ESCAPED[letter] ?? letter)
        : String.fromCharCode(Number.parseInt(hex, 16)),
    )
  }

  #skipBlanks(): void {
    this.#match(BLANKS)
  }

  #takes(token: string): boolean {
    if (!this.#text.startsWith(token, this.#at)) return false
    this.#at += token.length
    return true
  }

  #expect(token: string): void {
    if (!this.#takes(token)) throw new NotStrict(`no ${token} at ${this.#at}`)
  }

  #match(pattern: RegExp): RegExpExecArray {
    pattern.lastIndex = this.#at
    const match = pattern.exec(this.#text)
    if (match === null) throw new NotStrict(`nothing that fits at ${this.#at}`)
    this.#at += match[0].length
    return match
  }
}
