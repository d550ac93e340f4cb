import type { ServerFacts } from '../host/archive-server.ts'
import type { Files } from '../system/files.ts'
import { longPageHeaderBytes, parseLongPageHeader } from '../wal/page-header.ts'
import { pageMagicOf } from '../wal/page-magic.ts'
import { walFileKind } from '../wal/wal-file-name.ts'

/**
 * What a data directory tells about its cluster without a server to ask. A directory with nothing but `pg_wal` can be
 * archived from as well, so whatever is missing or unreadable is `undefined`.
 */
export async function clusterFacts(files: Files, dataDirectory: string): Promise<ServerFacts> {
  const version = await versionNumber(files, dataDirectory)
  const cluster = await systemIdentifier(files, dataDirectory)
  return {
    data_directory: dataDirectory,
    server_version_num: version,
    system_identifier: cluster,
    wal_segment_size: await walSegmentSize(files, dataDirectory, cluster),
    wal_page_magic: version === undefined ? undefined : pageMagicOf(version),
  }
}

async function versionNumber(files: Files, dataDirectory: string): Promise<number | undefined> {
  const text = await files.readText(`${dataDirectory}/PG_VERSION`).catch(() => '')
  const major = /^(\d+)\s*$/.exec(text)?.[1]
  return major === undefined ? undefined : Number(major) * 10_000
}

/** The first field of the control file, in every version. */
export async function systemIdentifier(files: Files, dataDirectory: string): Promise<string | undefined> {
  const bytes = await firstBytes(files, `${dataDirectory}/global/pg_control`, 8)
  return bytes?.readBigUInt64LE(0).toString()
}

// All are alike, so the first one tells. Some may be of another cluster, because somebody has put them there, or empty.
const segmentsLookedAtMax = 100

/**
 * The control file has it at a place that differs between versions; every segment that the server has begun to write
 * has it at the same one. Recycled segments still hold an old header, with the same size in it. One of another cluster
 * would let all that are its own be refused.
 */
async function walSegmentSize(
  files: Files,
  dataDirectory: string,
  cluster: string | undefined,
): Promise<number | undefined> {
  const names: string[] = []
  const remember = (name: string): void => {
    if (names.length < segmentsLookedAtMax && walFileKind(name) === 'segment') names.push(name)
  }
  await files.visit(`${dataDirectory}/pg_wal`, remember).catch(() => undefined)
  for (const name of names) {
    const bytes = await firstBytes(files, `${dataDirectory}/pg_wal/${name}`, longPageHeaderBytes)
    const header = bytes && parseLongPageHeader(bytes)
    if (header === undefined) continue
    if (cluster === undefined || header.systemIdentifier.toString() === cluster) return header.segmentBytes
  }
  return undefined
}

async function firstBytes(files: Files, path: string, count: number): Promise<Buffer | undefined> {
  try {
    await using file = await files.open(path, 'read')
    const buffer = Buffer.alloc(count)
    return (await file.read(buffer)) === count ? buffer : undefined
  } catch {
    return undefined
  }
}
