/**
 * Azure has no uploads, only blocks beside a blob, in which all writers of that blob share. So the name of a block says
 * which upload it is of, and when that was begun. All names of blocks of a blob must be of equal length.
 */
export interface BlockName {
  upload: string
  part: number
}

const pattern = /^pgarchivist-([0-9a-z]{9}-[0-9a-f]{24})-(\d{5})$/
const millisecondDigits = 9
const radix = 36

/** `id` is random. */
export function newUpload(id: string, nowMs: number): string {
  const time = nowMs.toString(radix).padStart(millisecondDigits, '0')
  return `${time}-${id.replaceAll('-', '').slice(0, 24)}`
}

export function uploadBegunMs(upload: string): number {
  return Number.parseInt(upload.slice(0, millisecondDigits), radix)
}

export function blockName({ upload, part }: BlockName): string {
  return Buffer.from(`pgarchivist-${upload}-${String(part).padStart(5, '0')}`).toString('base64')
}

/** `undefined` for the blocks of others. */
export function parseBlockName(name: string): BlockName | undefined {
  const [, upload, part] = pattern.exec(Buffer.from(name, 'base64').toString('latin1')) ?? []
  return upload === undefined ? undefined : { upload, part: Number(part) }
}
