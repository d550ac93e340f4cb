// BASE_BACKUP as pg_basebackup does it, for servers whose package brings no client programs.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Client } from 'pg'
import { giveAway, unprivileged, unprivilegedEnvironment } from './unprivileged.ts'

export interface BaseBackupOptions {
  label?: string
  /** Includes the WAL that the backup needs, so that it starts without an archive. On by default. */
  wal?: boolean
}

export interface BaseBackup {
  startLsn: string
  endLsn: string
  timeline: number
}

/** Unpacks a base backup into a directory; `client` is a replication connection. */
export async function takeBaseBackup(
  client: Client,
  directory: string,
  { label = 'pgarchivist', wal = true }: BaseBackupOptions,
): Promise<BaseBackup> {
  // pg shows what arrives in a COPY only on the connection beneath the client.
  const { connection } = client
  const tar = spawn('tar', ['--extract', '--file=-', `--directory=${directory}`], {
    ...unprivileged,
    env: unprivilegedEnvironment,
    cwd: '/',
    stdio: ['pipe', 'ignore', 'pipe'],
  })
  const complaints = tar.stderr.setEncoding('utf8').toArray()
  const ended = once(tar, 'close')
  // If tar ends early, its complaint and status tell why; the broken pipe does not.
  tar.stdin.on('error', () => connection.stream.resume())
  tar.stdin.on('drain', () => connection.stream.resume())

  const manifest: Buffer[] = []
  let target: 'archive' | 'manifest' | undefined
  let unexpected: string | undefined
  connection.on('copyData', ({ chunk }: { chunk: Buffer }) => {
    const kind = String.fromCharCode(chunk[0] ?? 0)
    const rest = chunk.subarray(1)
    switch (kind) {
      case 'n': {
        const [name] = rest.toString('latin1').split('\0')
        if (target !== undefined) unexpected = `a second archive, "${name}"; tablespaces are not handled here`
        target = 'archive'
        break
      }
      case 'm':
        target = 'manifest'
        break
      case 'd':
        // The parser's buffer is used again for what comes next, so what is kept beyond this call is copied.
        if (target === 'manifest') manifest.push(Buffer.from(rest))
        else if (!tar.stdin.destroyed && !tar.stdin.write(Buffer.from(rest))) connection.stream.pause()
        break
      case 'p':
        break
      default:
        unexpected = `a message of kind "${kind}"`
    }
  })

  try {
    // The server would wait until the last segment is archived, and nobody may be archiving.
    const options = `LABEL '${label.replaceAll("'", "''")}', CHECKPOINT 'fast', WAIT false, WAL ${wal}, MANIFEST 'yes'`
    const answer = await client.query(`BASE_BACKUP (${options})`)
    tar.stdin.end()
    const [status] = await ended
    if (status !== 0) throw new Error(`tar could not unpack the base backup: ${(await complaints).join('')}`)
    if (unexpected !== undefined) throw new Error(`the server sent ${unexpected}`)
    const path = join(directory, 'backup_manifest')
    await appendFile(path, Buffer.concat(manifest), { mode: 0o600 })
    await giveAway(path)
    // The answer is a list, other than its type says: start position, tablespaces, end position, and command
    // tags without rows.
    const positions = [answer]
      .flat()
      .flatMap(({ rows }) => rows)
      .filter(row => row.recptr !== undefined)
    const [start, end] = positions
    if (start === undefined || end === undefined)
      throw new Error('the server did not tell where the base backup ends')
    return { startLsn: start.recptr, endLsn: end.recptr, timeline: Number(end.tli) }
  } finally {
    tar.kill()
  }
}
