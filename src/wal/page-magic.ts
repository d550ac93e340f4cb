/** `XLOG_PAGE_MAGIC` of PostgreSQL's `access/xlog_internal.h`, by major version. */
const pageMagics: ReadonlyMap<number, number> = new Map([
  [15, 0xd110],
  [16, 0xd113],
  [17, 0xd116],
  [18, 0xd118],
  [19, 0xd122],
])

/** The magic number of WAL pages of a server; `undefined` for a major version that we do not know. */
export function pageMagicOf(versionNumber: number): number | undefined {
  return pageMagics.get(Math.floor(versionNumber / 10_000))
}

/** The major version whose servers write this magic number, for messages. */
export function majorOfPageMagic(magic: number): number | undefined {
  return [...pageMagics].find(([, each]) => each === magic)?.[0]
}
