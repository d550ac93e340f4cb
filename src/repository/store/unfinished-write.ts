// What stands beside an object for as long as it is written; FORMAT.md describes both.

const temporary = /^\.(.+)\.[0-9a-f]{16}\.tmp$/
const lock = /^(.+)\.lock\.\.\1\.[0-9a-f]{16}\.tmp$/

/** `writer` is 16 hexadecimal digits that tell writers apart. */
export function temporaryName(name: string, writer: string): string {
  return `.${name}.${writer}.tmp`
}

/** Is it the name of a file that is not complete? */
export function isTemporaryName(name: string): boolean {
  return temporary.test(name)
}

/** Is it such a name, or that of a lock, which file systems without hard links need? */
export function isUnfinishedWrite(name: string): boolean {
  return temporary.test(name) || lock.test(name)
}
