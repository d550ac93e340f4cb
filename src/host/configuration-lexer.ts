/**
 * Words of a configuration file. Like the server's, it sees bytes: a file need not be valid UTF-8, and `'\303\251'`
 * is two bytes that make one letter. So text is one character per byte here ("latin1"); `decodeBytes` ends that.
 */
export interface Token {
  kind:
    | 'identifier'
    | 'qualified identifier'
    | 'string'
    | 'unquoted string'
    | 'integer'
    | 'real'
    | 'equals'
    | 'error'
    | 'end of line'
    | 'end of file'
  text: string
  /** Counted from 1. */
  line: number
}

const letter = '[A-Za-z_\\x80-\\xff]'
const letterOrDigit = '[A-Za-z_0-9\\x80-\\xff]'
const identifier = `${letter}${letterOrDigit}*`

// The longest match counts, and of equally long ones the first. With a second dot a name is no name in a file, though
// on a command line it is.
const patterns: readonly (readonly [Token['kind'], RegExp])[] = [
  ['identifier', new RegExp(identifier, 'y')],
  ['qualified identifier', new RegExp(`${identifier}\\.${identifier}`, 'y')],
  ['unquoted string', new RegExp(`${letter}(?:${letterOrDigit}|[-._:/])*`, 'y')],
  ['integer', /[-+]?(?:0x[0-9a-fA-F]+|[0-9]+)[a-zA-Z]*/y],
  ['real', /[-+]?[0-9]*\.[0-9]*(?:[Ee][-+]?[0-9]+)?/y],
  ['equals', /=/y],
  ['error', /[^]/y],
]

export class ConfigurationLexer {
  readonly #bytes: string
  #at = 0
  #line = 1

  constructor(bytes: string) {
    this.#bytes = bytes
  }

  next(): Token {
    const blank = /(?:[ \t\r]|#[^\n]*)*/y
    blank.lastIndex = this.#at
    this.#at += blank.exec(this.#bytes)?.[0].length ?? 0
    const line = this.#line
    if (this.#at >= this.#bytes.length) return { kind: 'end of file', text: '', line }
    const found = this.#longest()
    this.#at += found.text.length
    if (found.kind === 'end of line') this.#line++
    return { ...found, line }
  }

  #longest(): Pick<Token, 'kind' | 'text'> {
    const first = this.#bytes[this.#at]
    if (first === '\n') return { kind: 'end of line', text: '\n' }
    if (first === "'") {
      const end = this.#endOfString()
      if (end > 0) return { kind: 'string', text: this.#bytes.slice(this.#at, end) }
    }
    let longest: Pick<Token, 'kind' | 'text'> = { kind: 'error', text: '' }
    for (const [kind, pattern] of patterns) {
      pattern.lastIndex = this.#at
      const text = pattern.exec(this.#bytes)?.[0] ?? ''
      if (text.length > longest.text.length) longest = { kind, text }
    }
    return longest
  }

  // Walks rather than matches a pattern, which would remember every byte of a long string to go back to.
  #endOfString(): number {
    let end = 0
    for (let at = this.#at + 1; at < this.#bytes.length; at++) {
      const byte = this.#bytes[at]
      if (byte === '\n') return end
      if (byte === '\\') {
        // A backslash hides what follows, except the end of the line, which ends everything.
        if (this.#bytes[at + 1] !== '\n') at++
        else return end
      } else if (byte === "'") {
        if (this.#bytes[at + 1] !== "'") return at + 1
        // Two quotes are one inside the string, but should no last quote follow, then the string ended here.
        end = at + 1
        at++
      }
    }
    return end
  }
}

const escapes: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }

/** What a quoted string stands for. */
export function unquote(text: string): string {
  return text.slice(1, -1).replace(/''|\\([0-7]{1,3}|[^])/g, (_match, escaped: string | undefined) => {
    if (escaped === undefined) return "'"
    if (/^[0-7]/.test(escaped)) return String.fromCharCode(Number.parseInt(escaped, 8) & 0xff)
    return escapes[escaped] ?? escaped
  })
}

/** Bytes as text, up to a zero byte, where a string of C ends. */
export function decodeBytes(bytes: string): string {
  const zero = bytes.indexOf('\0')
  return Buffer.from(zero < 0 ? bytes : bytes.slice(0, zero), 'latin1').toString('utf8')
}
