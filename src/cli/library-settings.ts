/** What only the library in a server has; see `_PG_init` in src/bridge/pg/pgarchivist.c. */
export const librarySettings: ReadonlySet<string> = new Set(
  ['module', 'node', 'archive_ahead', 'file_timeout', 'start_timeout', 'stop_timeout', 'memory_limit'].map(
    word => `pgarchivist.${word}`,
  ),
)
