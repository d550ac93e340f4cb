import type { ServerGuc } from './declaring-guc-registry.ts'

const timeMaxMs = 1_073_741_823

/**
 * The settings that the library in the server has for itself (`_PG_init` in `pg/pgarchivist.c`, and a test holds both
 * equal). No module declares them; a value that the server refuses at a reload is told by their help.
 */
export const libraryGucs = [
  {
    type: 'string',
    name: 'pgarchivist.module',
    short_desc: 'The archive module: a TypeScript file, or one that pgarchivist ships.',
    boot_value: 'repository',
    context: 'PGC_SIGHUP',
  },
  {
    type: 'string',
    name: 'pgarchivist.node',
    short_desc: 'The Node program to use instead of the one that pgarchivist brings.',
    boot_value: '',
    context: 'PGC_SIGHUP',
  },
  {
    type: 'int',
    name: 'pgarchivist.archive_ahead',
    short_desc: 'How many files a module that can do so archives at once.',
    boot_value: 4,
    min_value: 1,
    max_value: 64,
    context: 'PGC_SIGHUP',
  },
  {
    type: 'int',
    name: 'pgarchivist.file_timeout',
    short_desc: 'How long an attempt to archive a file may take.',
    boot_value: 60_000,
    min_value: 1_000,
    max_value: timeMaxMs,
    context: 'PGC_SIGHUP',
    flags: ['GUC_UNIT_MS'],
  },
  {
    type: 'int',
    name: 'pgarchivist.start_timeout',
    short_desc: 'How long the module may take to start.',
    boot_value: 10_000,
    min_value: 100,
    max_value: timeMaxMs,
    context: 'PGC_SIGHUP',
    flags: ['GUC_UNIT_MS'],
  },
  {
    type: 'int',
    name: 'pgarchivist.stop_timeout',
    short_desc: 'How long a stopping server waits for a file to be archived.',
    boot_value: 20_000,
    min_value: 0,
    max_value: timeMaxMs,
    context: 'PGC_SIGHUP',
    flags: ['GUC_UNIT_MS'],
  },
  {
    type: 'int',
    name: 'pgarchivist.memory_limit',
    short_desc: 'Resident memory at which the Node process is ended and started again.',
    long_desc: '0 means no limit.',
    boot_value: 512,
    min_value: 0,
    max_value: 2_097_151,
    context: 'PGC_SIGHUP',
    flags: ['GUC_UNIT_MB'],
  },
] as const satisfies readonly ServerGuc[]
