import { markPattern, type ProcessMark, parseMark, printMark } from '../../system/process-mark.ts'

// What stands beside an object for as long as it is written; FORMAT.md describes both.

const by = `(?:(${markPattern})\\.)?([0-9a-f]{16})`
const temporary = new RegExp(`^\\.(.+?)\\.${by}\\.tmp$`)
const lock = new RegExp(`^(.+)\\.lock\\.(\\.\\1\\.${by}\\.tmp)$`)

/** `writer` is 16 hexadecimal digits that tell writers apart. */
export function temporaryName(name: string, writer: string, process?: ProcessMark): string {
  return `.${name}.${process === undefined ? '' : `${printMark(process)}.`}${writer}.tmp`
}

/** Is it the name of a file that is not complete? */
export function isTemporaryName(name: string): boolean {
  return temporary.test(name)
}

/** Is it such a name, or that of a lock, which file systems without hard links need? */
export function isUnfinishedWrite(name: string): boolean {
  return temporary.test(name) || lock.test(name)
}

/** Who has made an unfinished write, as its name tells. */
export function writerOf(name: string): { writer: string; process: ProcessMark | undefined } | undefined {
  const [, , mark = '', writer] = temporary.exec(lock.exec(name)?.[2] ?? name) ?? []
  return writer === undefined ? undefined : { writer, process: parseMark(mark) }
}
