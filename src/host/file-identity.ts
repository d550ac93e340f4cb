import type { FileStatus } from '../system/files.ts'

/** As `stat -c '%d %i %s %.9Y %.9Z'` prints it. */
export function identityOf({ device, inode, size, modifiedNs, changedNs }: FileStatus): string {
  return `${device} ${inode} ${size} ${seconds(modifiedNs)} ${seconds(changedNs)}`
}

const nanoseconds = 1_000_000_000n

function seconds(ns: bigint): string {
  return `${ns / nanoseconds}.${(ns % nanoseconds).toString().padStart(9, '0')}`
}
