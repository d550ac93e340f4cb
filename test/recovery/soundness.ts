// Whether a cluster is whole: every page, every index entry.

import assert from 'node:assert/strict'
import type { PostgresServer } from '../support/postgresql-server.ts'

/** To be called before a backup is taken, because a recovered cluster has only what is in it. */
export async function installChecks(server: PostgresServer): Promise<void> {
  await server.query('CREATE EXTENSION amcheck; CREATE EXTENSION pg_prewarm')
}

/**
 * Reads all of the database from the disk, so that the server compares every page with its checksum, and then lets
 * amcheck look at what is in the pages.
 */
export async function assertSound(server: PostgresServer): Promise<void> {
  // What is in its buffers would not be read from the disk.
  await server.stop('fast')
  await server.start()

  const [settings] = await server.query<{ data_checksums: string }>('SHOW data_checksums')
  assert.equal(settings?.data_checksums, 'on')
  const [read] = await server.query<{ pages: string; relations: number }>(
    `SELECT sum(pg_prewarm(oid, 'buffer', fork)) AS pages, count(*)::int AS relations
       FROM pg_class, unnest(ARRAY['main', 'fsm', 'vm']) AS fork
      WHERE relkind IN ('r', 'i', 't', 'm', 'S') AND pg_relation_size(oid, fork) > 0`,
  )
  assert(Number(read?.pages) > 500 && (read?.relations ?? 0) > 100, 'hardly anything was read')

  const damaged = await server.query(
    `SELECT c.oid::regclass::text, found.*
       FROM pg_class AS c, verify_heapam(c.oid) AS found WHERE c.relkind IN ('r', 't', 'm')`,
  )
  assert.deepEqual(damaged, [])
  // It raises an error at the first entry that is not right.
  const [indexes] = await server.query<{ checked: number }>(
    `SELECT count(bt_index_parent_check(c.oid, true, true)::text)::int AS checked
       FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam
      WHERE c.relkind = 'i' AND a.amname = 'btree' AND c.relpersistence = 'p'`,
  )
  assert((indexes?.checked ?? 0) > 100, 'hardly any index was checked')

  const [failures] = await server.query<{ count: string }>(
    'SELECT coalesce(sum(checksum_failures), 0) AS count FROM pg_stat_database',
  )
  assert.equal(Number(failures?.count), 0)
}
